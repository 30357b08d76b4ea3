"""Have chunks done again, elsewhere if possible, after a fault of the machine they were on.

The driver starts the graph again for the chunks that are left, after a pause and away from the
machines that had faults. Faults are counted until the chunk that met them is committed; the third
ends the run. They are counted in the driver's memory: the next driver begins anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from omnitrace_core.errors import NodeFault, RunError

MAX_TRIES = 3
PAUSES_S = (5.0, 30.0)  # before the second try and before the third

log = logging.getLogger(__name__)


@dataclass(slots=True)
class NodeTries:
    """The node faults of one driver.

    wait: waits for a number of seconds. n_restarts: how often the graph was started again. nodes:
    Ray's ids of the machines that had faults, in the order of their first.
    """

    wait: Callable[[float], None] = time.sleep
    pauses_s: Sequence[float] = PAUSES_S
    n_restarts: int = 0
    nodes: list[str] = field(default_factory=list)
    _faults: list[NodeFault] = field(default_factory=list)

    def committed(self, chunk: str) -> None:
        """Forget the faults that this chunk met."""
        self._faults = [fault for fault in self._faults if fault.chunk != chunk]

    def failed(self, fault: NodeFault) -> None:
        """Count a fault and wait until the graph may start again.

        Raises:
            RunError: it is the third; the message names each machine and what it lacked.
        """
        self._faults.append(fault)
        if fault.node and fault.node not in self.nodes:
            self.nodes.append(fault.node)
        n_faults = len(self._faults)
        if n_faults >= MAX_TRIES:
            raise RunError(
                f"the machines of the run lack what it needs, in {n_faults} tries, so it stops "
                f"before samples are blamed for it; {self._account()}; when that is mended, the "
                "same command continues the run"
            ) from fault
        pause_s = self.pauses_s[min(n_faults, len(self.pauses_s)) - 1]
        log.warning(
            "a machine lacks what the run needs (%s); try %d of %d starts in %g s, on other "
            "machines if there are any",
            fault,
            n_faults + 1,
            MAX_TRIES,
            pause_s,
        )
        self.wait(pause_s)
        self.n_restarts += 1

    def _account(self) -> str:
        """The faults' messages, each once."""
        return " | ".join(dict.fromkeys(fault.message for fault in self._faults))
