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

#endif
