"""What a run leaves for people: pictures, videos, reports, curves."""
