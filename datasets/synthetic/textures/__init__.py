"""Small pictures of what the synthetic world shows, drawn from a random generator.

They are (h, w, 4) uint8 RGBA. Alpha says where the thing is (0 or 255 at full size); colour
continues beyond it, so that interpolation at an outline does not mix in black. Several classes
share grey and green on purpose: shape and place must tell them apart.
"""
