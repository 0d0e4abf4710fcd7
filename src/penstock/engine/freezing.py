"""Freezing an environment: it takes no release until it is unfrozen. What serves goes on, and a way back stays open."""

from penstock.engine.world import World
from penstock.errors import StateError
from penstock.releases import Frozen
from penstock.store.contract import Request


def freeze(world: World, request: Request) -> None:
    """Carry out a request to freeze or unfreeze, and end it, at once. Raises StateError where it is so already."""
    releases, wanted = world.store.releases, request.payload
    place = (str(wanted["project"]), str(wanted["environment"]))
    frozen = releases.frozen(*place)
    if request.kind == "freeze" and frozen is not None:
        raise StateError(f"{frozen.sentence(place[1])}: unfreeze it first to give another reason")
    if request.kind == "unfreeze" and frozen is None:
        raise StateError(f"{place[1]} is not frozen")
    with world.store.transaction(durable=True):
        if request.kind == "freeze":
            releases.freeze(*place, Frozen(request.actor, str(wanted["reason"]), world.clock.now(), request.id))
        else:
            releases.unfreeze(*place, request.actor)
        world.store.requests.end(request.id, 0)
