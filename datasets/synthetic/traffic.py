"""Cars and people of a synthetic street."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .classes import CAR, PERSON, ROAD
from .materials import CarLook
from .scene import CURB, Scene, Surface, X, Y, Z

Point = tuple[float, float]


def add_traffic(scene: Scene, rng: Generator, duration: float) -> None:
    """Cars ahead and oncoming, people standing and walking; duration: seconds of the video."""
    speed = rng.uniform(4, 13)  # m/s, the same for all oncoming cars: none overtakes another
    car_every = rng.uniform(2, 8)  # seconds between the cars that the camera meets, on average
    person_every = rng.uniform(1.5, 6)  # metres, on average
    add_oncoming(scene, rng, duration, speed, car_every)
    if rng.random() < 0.65:
        add_car_ahead(scene, rng, duration)
    z = 3.0
    while z < scene.end - 40:
        add_person(scene, rng, z)
        z += rng.exponential(person_every)


def add_oncoming(scene: Scene, rng: Generator, duration: float, speed: float, every: float) -> None:
    """Cars in the other lane that the camera meets until some seconds after the video's end."""
    ride = scene.ride
    meeting = rng.uniform(0, every)  # seconds from the first frame
    while meeting < duration + 10:
        place = ride.speed * meeting
        start = place + speed * meeting
        add_car(scene, rng, -ride.lane, start, heading=-1, speed=speed)
        meeting += 1.2 + rng.exponential(every)


def add_car_ahead(scene: Scene, rng: Generator, duration: float) -> None:
    """A car in the camera's lane that is about as fast as the camera."""
    ride = scene.ride
    gap = rng.uniform(9, 26)  # metres
    extra = rng.uniform(-0.8, 1.5)  # m/s
    # the camera comes no nearer to it than 7 m
    slowest = (7 - gap) / max(duration, 60)
    speed = ride.speed + max(extra, slowest)
    add_car(scene, rng, ride.lane, gap, heading=1, speed=speed)


def add_person(scene: Scene, rng: Generator, z: float) -> None:
    """A person standing or walking on the sidewalk, or crossing.

    The camera meets the person at z, and never on its own path.
    """
    ride = scene.ride
    profile = scene.profile
    side = int(rng.choice([-1, 1]))
    x = side * rng.uniform(profile.road + 0.4, profile.walk - 0.3)
    direction = rng.choice([-1, 0, 1], p=[0.45, 0.3, 0.25])
    velocity = Z * direction * rng.uniform(0.8, 1.6)
    if rng.random() < 0.15:  # crossing, the draws above without effect
        x = ride.lane + side * rng.uniform(1.8, 7)
        velocity = X * rng.choice([-1, 1]) * rng.uniform(0.7, 1.5)
    # where the person is at time 0, to be at (x, z) when the camera is
    meeting = np.array([x, 0, z])
    start = meeting - velocity * z / ride.speed
    if rng.random() < 0.85:
        height = rng.uniform(1.5, 1.95)
    else:
        height = rng.uniform(1.0, 1.4)
    bottom = 0
    if abs(x) > profile.road:
        bottom = CURB
    picture = Surface(PERSON, rng.choice(scene.look.people))
    size = (height / 2, height)
    x, _, z = start
    scene.upright(picture, x, z, size, bottom=bottom, velocity=velocity)


def add_car(
    scene: Scene, rng: Generator, x: float, z: float, *, heading: int, speed: float = 0
) -> None:
    """A car centred at x, its rear (heading 1) or nose (-1) at z.

    Its parts are patches that move together, and so is the shadow under it, which is labelled road.
    """
    look = scene.look.cars[rng.integers(len(scene.look.cars))]
    velocity = Z * heading * speed
    add_car_faces(scene, look, (x, z), heading, velocity)
    add_car_sides(scene, look, (x, z), heading, velocity)
    shadow = Surface(ROAD, scene.look.shadow)
    half = look.model.width / 2
    across = (x - half - 0.1, x + half + 0.1)
    length = (z - 0.15, z + look.model.length + 0.1)
    # above the road and above the shade that lies on it
    scene.ground(shadow, across, length, 0.02, velocity=velocity)


def add_car_faces(
    scene: Scene, look: CarLook, place: Point, heading: int, velocity: np.ndarray
) -> None:
    """Nose, hood, windscreen, roof and so on, from far to near; place: (x, z) of the car."""
    x, z = place
    model = look.model
    outline = model.outline  # (distance from the rear, height), from nose to tail
    if heading < 0:
        outline = [(model.length - distance, height) for distance, height in outline]
    points = [(z + distance, height) for distance, height in outline]
    faces = list(zip(points, points[1:], look.faces, strict=False))
    if heading < 0:  # its tail is far
        faces = [(after, before, texture) for before, after, texture in reversed(faces)]
    for (far_z, far_y), (near_z, near_y), texture in faces:
        length = float(np.hypot(near_z - far_z, near_y - far_y))
        down = np.array([0, far_y - near_y, near_z - far_z]) / length
        corner = (x - model.width / 2, -far_y, far_z)
        size = (model.width, length)
        scene.add(Surface(CAR, texture), corner, (X, down), size, velocity=velocity)


def add_car_sides(
    scene: Scene, look: CarLook, place: Point, heading: int, velocity: np.ndarray
) -> None:
    """The two side views; place: (x, z) of the car."""
    x, z = place
    model = look.model
    height = max(height for _, height in model.outline)
    size = (model.length, height)
    # the picture on the left side begins at the far end, where an oncoming car has its rear
    left, right = look.rear_left, look.rear_right
    if heading > 0:
        left, right = right, left
    corner = (x - model.width / 2, -height, z + model.length)
    scene.add(Surface(CAR, left), corner, (-Z, Y), size, velocity=velocity)
    corner = (x + model.width / 2, -height, z)
    scene.add(Surface(CAR, right), corner, (Z, Y), size, velocity=velocity)
