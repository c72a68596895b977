"""Hosts made of network namespaces, for the demo, the benchmarks and the tests. Not in the installed package.

* `Rig` builds client, middle and server hosts, wires them and takes everything away again.
* `Host` is one of them: runs programs inside, calls Python functions inside, sets its sysctls.
* `Appliance` runs the real `marchproxy` in the middle host, with state, runtime and bpffs directories of its
  own.
* `programs/` are small servers to talk to, `servers` starts them, `traffic` talks to them.
* `waiting` waits for conditions; `lifecycle` sees to it that nothing is left behind.

Needs root. Several rigs, in one process or in many, do not see each other.
"""

from rig.appliance import Appliance
from rig.host import Host
from rig.network import Rig
from rig.process import Process
from rig.waiting import RigError, wait_for

__all__ = ["Appliance", "Host", "Process", "Rig", "RigError", "wait_for"]
