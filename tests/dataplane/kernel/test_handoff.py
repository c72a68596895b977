"""handoff: two real connections over real links become a flow, and what user space holds is right.

What happens to many of them over bad links is in tests/handoff.
"""

import os
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.clsact import attach_clsact
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.handoff import (
    Draining,
    Handoff,
    Progress,
    TunnelFacts,
    close_silently,
    new_flow_id,
)
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.loading import Pipeline, load_pipeline
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.splices import Splices
from marchproxy.dataplane.kernel.tunnels import Tunnel, TunnelTable
from marchproxy.dataplane.kernel.upstreamports import UpstreamPorts
from marchproxy.dataplane.records import Event
from rig import Rig
