"""The DNS listener: answers clients from the resolvers, and teaches the policy what they were told.

* `query` reads what a client sent, and refuses what it may not ask; `answer` writes what it gets.
* `cache` keeps answers, `forwarder` fetches them: one question of many clients goes out once.
* `responder` decides: rate, block lists, rebinding, and that no address is told before policy knows it.
* `clients` counts what each may ask; `udp` and `tcp` own sockets, `service` opens and closes them.

Only inside interfaces, and the host itself, reach it: the sockets are bound to these devices, so that to
anyone else nothing listens.
"""
