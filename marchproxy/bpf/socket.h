/* SPDX-License-Identifier: GPL-2.0 */
/* Asking for the local socket of a tuple. */
#ifndef MP_SOCKET_H
#define MP_SOCKET_H

#include "packet.h"

/* `key` is the tuple of a packet as it arrives at the socket. Returns the size that goes with the tuple. */
static __always_inline __u32 socket_tuple(struct bpf_sock_tuple *tuple, const struct mp_flow_key *key)
{
	if (address_is_v4(&key->source)) {
		tuple->ipv4.saddr = key->source.word[3];
		tuple->ipv4.daddr = key->destination.word[3];
		tuple->ipv4.sport = key->source_port;
		tuple->ipv4.dport = key->destination_port;
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, &key->source, sizeof(tuple->ipv6.saddr));
	__builtin_memcpy(tuple->ipv6.daddr, &key->destination, sizeof(tuple->ipv6.daddr));
	tuple->ipv6.sport = key->source_port;
	tuple->ipv6.dport = key->destination_port;
	return sizeof(tuple->ipv6);
}

/* The socket of the TCP connection that a packet is of, to be released; NULL where there is none, or one that only waits for
 * connections. The verifier wants constants for sizes. */
static __always_inline struct bpf_sock *socket_of_tcp(mp_context *context, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;

	if (socket_tuple(&tuple, &packet->key) == sizeof(tuple.ipv4))
		socket = bpf_skc_lookup_tcp(context, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_skc_lookup_tcp(context, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (socket && socket->state == BPF_TCP_LISTEN) {
		bpf_sk_release(socket);
		return NULL;
	}
	return socket;
}

/* Whether this host has a connection of its own that a TCP packet is of. Global, see `parse`; and one for each protocol, whose
 * sockets are of different types to the verifier. */
__noinline int socket_has_tcp(mp_context *context, const struct packet *packet)
{
	struct bpf_sock *socket;

	if (!packet)
		return 0;
	socket = socket_of_tcp(context, packet);
	if (socket)
		bpf_sk_release(socket);
	return socket != NULL;
}

/* Whether a socket of this host is connected to where a UDP packet comes from. */
__noinline int socket_has_udp(mp_context *context, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	int found;

	if (!packet)
		return 0;
	if (socket_tuple(&tuple, &packet->key) == sizeof(tuple.ipv4))
		socket = bpf_sk_lookup_udp(context, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(context, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	found = socket->state == BPF_TCP_ESTABLISHED;
	bpf_sk_release(socket);
	return found;
}

#endif
