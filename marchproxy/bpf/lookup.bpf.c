// SPDX-License-Identifier: GPL-2.0
/* New connections to any of many addresses and ports, given to one listening socket (kernel 5.9).
 *
 * Attached to a network namespace. It runs where no socket is connected yet, before the kernel looks for one that listens; what it
 * does not know goes the kernel's own way, and so does what it knows while nobody holds the socket.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "marchproxy.h"

#define AF_INET 2

/* By address, port and protocol (bank 0), with addresses as in `listeners`: which of `lookup_sockets` it is. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_LISTENERS);
	__type(key, struct mp_listener_key);
	__type(value, __u32);
} lookup_ports SEC(".maps");

/* A socket that is closed leaves by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, MP_LOOKUP_SOCKETS);
	__type(key, __u32);
	__type(value, __u64);
} lookup_sockets SEC(".maps");

/* Volatile, and no load inside a condition: the verifier takes none that the compiler has merged of two fields. */
static __always_inline const __u32 *lookup_place(const volatile struct bpf_sk_lookup *context)
{
	struct mp_listener_key key = {
		.port = bpf_htons(context->local_port),
		.protocol = context->protocol,
	};
	const __u32 v4 = context->local_ip4;
	const int is_v4 = context->family == AF_INET;
	const __u32 *place;

	key.address.word[0] = context->local_ip6[0];
	key.address.word[1] = context->local_ip6[1];
	key.address.word[2] = context->local_ip6[2];
	key.address.word[3] = context->local_ip6[3];
	if (is_v4) {
		key.address.word[2] = bpf_htonl(0xffff);
		key.address.word[3] = v4;
	}
	place = bpf_map_lookup_elem(&lookup_ports, &key);
	if (place)
		return place;
	if (!is_v4)
		key.address.word[0] = key.address.word[1] = key.address.word[2] = 0;
	key.address.word[3] = 0;
	return bpf_map_lookup_elem(&lookup_ports, &key);
}

SEC("sk_lookup")
int marchproxy_lookup(struct bpf_sk_lookup *context)
{
	const __u32 *place = lookup_place(context);
	struct bpf_sock *socket;

	if (!place)
		return SK_PASS;
	socket = bpf_map_lookup_elem(&lookup_sockets, place);
	if (!socket)
		return SK_PASS;
	bpf_sk_assign(context, socket, 0);
	bpf_sk_release(socket);
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
