import abc
from typing import TypeVar

import equinox as eqx
import jax

T = TypeVar("T")


class AbstractProjected(eqx.Module):
    """A module whose arrays stay in a set that gradient steps leave, such as unit vectors.

    The learner applies `project` to every module of this type, and to nothing else, when networks
    are built and straight after every optimizer step. Statistics of the optimizer are left as
    they are.
    """

    @abc.abstractmethod
    def project(self) -> "AbstractProjected":
        """The same module with its arrays moved to the nearest point of the set.

        Works unchanged for any number of leading axes, those of layers and of ensembles.
        Projecting twice is projecting once.
        """


def project(tree: T) -> T:
    """`tree` with every `AbstractProjected` in it projected; all else is untouched."""

    def is_projected(node: object) -> bool:
        return isinstance(node, AbstractProjected)

    return jax.tree.map(
        lambda node: node.project() if isinstance(node, AbstractProjected) else node,
        tree,
        is_leaf=is_projected,
    )
