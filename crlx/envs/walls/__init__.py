"""Brax's spring physics with walls at the cost of an open floor: contacts in closed form, and of a
maze's walls only those that can be touched."""

from ._collisions import Collisions as Collisions
from ._near_walls import Walls as Walls
from ._spring import step as step
