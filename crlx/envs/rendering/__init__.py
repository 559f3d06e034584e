"""Pictures of environments: a page to play, a video, a still without OpenGL."""

from ._render import posed as posed
from ._render import render as render
from ._software import draw as draw
from ._video import images as images
from ._video import video as video
