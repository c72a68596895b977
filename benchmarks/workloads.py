"""What is measured. More is better, in every row."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bed import DATAGRAMS, PINGPONG, Bed, Transport

type Measure = Callable[[Bed, str, float], float]
"""Bed, target address, seconds; the figure in the workload's unit."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    name: str
    title: str
    unit: str
    scale: float
    """What a figure is divided by for display in `unit`."""
    work: str
    """What processor time is shown for, with its unit."""
    work_scale: float
    """What seconds of a processor for one of what is counted are multiplied by for display in `work`."""
    transport: Transport
    goal: float
    """What MarchProxy's TC tier is to reach, as a share of plain routing."""
    measure: Measure


def bulk_up(bed: Bed, target: str, seconds: float) -> float:
    """Bits a second of one TCP stream from the client."""
    return float(bed.iperf(target, seconds)["end"]["sum_received"]["bits_per_second"])


def bulk_down(bed: Bed, target: str, seconds: float) -> float:
    """Bits a second of one TCP stream to the client."""
    return float(bed.iperf(target, seconds, "--reverse")["end"]["sum_received"]["bits_per_second"])


def bulk_both(bed: Bed, target: str, seconds: float) -> float:
    """Bits a second of two TCP streams, one each way, together."""
    ended = bed.iperf(target, seconds, "--bidir")["end"]
    return float(sum(ended[way]["bits_per_second"] for way in ("sum_received", "sum_received_bidir_reverse")))


def streams(bed: Bed, target: str, seconds: float) -> float:
    """Bits a second of 16 TCP streams from the client together."""
    return float(bed.iperf(target, seconds, "--parallel", "16")["end"]["sum_received"]["bits_per_second"])


def ping_pong(bed: Bed, target: str, seconds: float) -> float:
    """Answers a second on 8 open connections, one small message on each: fewer let processors sleep."""
    result = bed.exchange(target, PINGPONG, seconds, sockets=8, in_flight=1)
    return float(result["answers"] / result["seconds"])


def keep_alive(bed: Bed, target: str, seconds: float) -> float:
    """HTTP requests a second on 32 open connections."""
    return bed.wrk(target, seconds, "--threads", "2", "--connections", "32")


def new_connections(bed: Bed, target: str, seconds: float) -> float:
    """HTTP requests a second with a connection for each."""
    options = ("--threads", "2", "--connections", "64", "--header", "Connection: close")
    return bed.wrk(target, seconds, *options)


def datagrams(bed: Bed, target: str, seconds: float) -> float:
    """Small UDP packets a second, both ways together, on 4 sockets with 16 in flight on each."""
    result = bed.exchange(target, DATAGRAMS, seconds, sockets=4, in_flight=16)
    return float(2 * result["answers"] / result["seconds"])


def questions(bed: Bed, target: str, seconds: float) -> float:
    """DNS answers a second, 32 questions open, each of which is a new conversation."""
    return bed.questions(target, seconds, at_once=32)


WORKLOADS = (
    Workload("bulk-up", "one TCP stream up", "Gbit/s", 1e9, "ms/GB", 8e12, "tcp", 0.95, bulk_up),
    Workload("bulk-down", "one TCP stream down", "Gbit/s", 1e9, "ms/GB", 8e12, "tcp", 0.95, bulk_down),
    Workload("ping-pong", "ping-pong, 8 connections", "k/s", 1e3, "µs/answer", 1e6, "tcp", 0.90, ping_pong),
    Workload(
        *("keep-alive", "HTTP requests, keep-alive", "k/s", 1e3, "µs/request", 1e6),
        *("tcp", 0.90, keep_alive),
    ),
    Workload(
        *("new-connections", "HTTP requests, new connections", "k/s", 1e3, "µs/request", 1e6),
        *("tcp", 0.90, new_connections),
    ),
    Workload("datagrams", "small UDP packets", "k/s", 1e3, "µs/packet", 1e6, "udp", 0.90, datagrams),
)

MORE = (
    Workload("bulk-both", "TCP streams both ways", "Gbit/s", 1e9, "ms/GB", 8e12, "tcp", 0.95, bulk_both),
    Workload("streams", "16 TCP streams up", "Gbit/s", 1e9, "ms/GB", 8e12, "tcp", 0.95, streams),
    Workload("dns", "DNS, a port for each question", "k/s", 1e3, "µs/answer", 1e6, "udp", 0.90, questions),
)
"""In a table of their own, on the page of series."""
ALL = (*WORKLOADS, *MORE)
