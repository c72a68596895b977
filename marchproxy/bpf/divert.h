/* SPDX-License-Identifier: GPL-2.0 */
/* Connections that pass through and that user space looks at first: for the name that their TLS asks for.
 *
 * Their packets are addressed to others, and go to a socket of this host all the same: the first one to the listening socket that
 * user space has put into `divert_sockets`, later ones to the connection that this made. The kernel takes a packet up that has a
 * socket only where its routes say that the destination is local, which DIVERT_MARK makes them say, by a rule and a route that
 * user space has added (kernel's networking/tproxy.rst). Once the two connections are joined there is a flow, and none of
 * this is reached.
 *
 * XDP cannot give packets to sockets, and hands up what may be of such a connection.
 */
#ifndef MP_DIVERT_H
#define MP_DIVERT_H

#include "maps.h"
#include "packet.h"
#include "socket.h"

#ifdef MP_XDP

static __always_inline int divert_begin(mp_context *context, const struct packet *packet)
{
	return 0;
}

static __always_inline int divert_goes_on(mp_context *context, const struct packet *packet)
{
	return packet->key.protocol == IPPROTO_TCP;
}

#else

static __always_inline int divert_to(mp_context *context, struct bpf_sock *socket)
{
	int failed = (int)bpf_sk_assign(context, socket, 0);

	bpf_sk_release(socket);
	if (failed)
		return -1;
	context->mark = MP_DIVERT_MARK;
	return 0;
}

/* A new connection: to the listening socket. Returns 0, or -1 where there is none. */
static __always_inline int divert_begin(mp_context *context, const struct packet *packet)
{
	__u32 family = packet->version == 6;
	struct bpf_sock *socket = bpf_map_lookup_elem(&divert_sockets, &family);

	return socket ? divert_to(context, socket) : -1;
}

/* To the socket of the packet's own connection, if there is one: 1 if there is. One that listens at every address does not
 * mean those of others. Global, see `parse`. */
__noinline int divert_goes_on(mp_context *context, const struct packet *packet)
{
	struct bpf_sock *socket;

	if (!packet || packet->key.protocol != IPPROTO_TCP)
		return 0;
	socket = socket_of_tcp(context, packet);
	return socket && !divert_to(context, socket);
}

#endif

#endif
