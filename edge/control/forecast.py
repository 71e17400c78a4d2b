"""What another configuration would do with traffic, worked out on a copy of what is known now.

One rule: it only reads. What a backend's health would be is not known for one that is new: it counts as available.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from edge.config.loader import Config
from edge.control.membership import routes_of
from edge.control.routing import Routing
from edge.control.supervisor import Supervisor


def forecast(supervisor: Supervisor, config: Config) -> dict[str, Any]:
    """The shares of each pool's regions before and after a configuration change, and the routes that would be left
    without a region.
    """
    now = monotonic()
    routing = supervisor.routing
    after = Routing(
        config, supervisor.state_store.membership(config), lambda kind, facts: None, supervisor.routing.wall
    )
    after.learn(routing)
    after.decide(now)
    pools = []
    for name in dict.fromkeys((*after.pools, *routing.pools)):
        was = routing.pools[name].view.shares if name in routing.pools else {}
        will = after.pools[name].view.shares if name in after.pools else {}
        pools.append(
            {
                "name": name,
                "regions": [
                    {"name": region, "before": round(was.get(region, 0.0), 2), "after": round(will.get(region, 0.0), 2)}
                    for region in dict.fromkeys((*will, *was))
                ],
            }
        )
    unserved = sorted(after.membership.unserved(routes_of(config)))
    return {"pools": pools, "refused": [f"route {name}: no region that may serve it is left" for name in unserved]}
