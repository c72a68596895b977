"""Admission in processes of its own, one for each processor: clients are heard beside the daemon, not in it.

`pool` is the daemon's side and stands in for `admission.service.Admission`; `worker` is a process with one of
those in it; `messages` is what they say to each other, over a `channel`. Listening sockets are opened by the
daemon and shared by all workers: when one dies, those who wait in the sockets' queues are accepted by the
others, and the next one gets the same sockets. Tunnels that are ripe come to the daemon, the only one that
touches the kernel's flows.
"""
