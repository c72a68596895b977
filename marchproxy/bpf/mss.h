/* SPDX-License-Identifier: GPL-2.0 */
/* The maximum segment size that the two ends of a TCP connection announce, lowered to what fits both ways through us.
 *
 * A SYN says what its sender can receive, which is the size of what comes back. Where one network takes larger packets than the
 * other, path-MTU discovery finds the size as well, unless somebody filters ICMP; a clamped announcement needs no ICMP. It
 * is only ever lowered, and an end that announces nothing gets the default of 536 or 1220 bytes (RFC 9293 section 3.7.1) as before.
 *
 * TC alone does this: whatever opens a connection has its way out looked up, for which XDP hands it up anyway.
 */
#ifndef MP_MSS_H
#define MP_MSS_H

#include "checksum.h"
#include "packet.h"
#include "parse.h"
#include "route.h"

#define MSS_END 0             /* kinds of TCP options (RFC 9293 section 3.2) */
#define MSS_NOTHING 1
#define MSS_OPTION 2
#define MSS_OPTION_LENGTH 4
#define MSS_OPTIONS 40        /* bytes that a header has for options, so there are no more of them */

/* The MTU of the way back to the packet's sender; 0: not known. */
static __noinline __u32 mss_way_back(mp_context *context, const struct packet *packet)
{
	struct route route;

	route_lookup(&route, context, &packet->key.destination, &packet->key.source, packet->key.protocol);
	return route.state <= ROUTE_NEIGHBOUR && route.fib.mtu_result > 1 ? route.fib.mtu_result : 0;
}

struct mss_search {
	mp_context *context;
	const struct packet *packet;
	__u32 at;             /* offset in the TCP header of the next option */
	__u32 end;            /* of the TCP header */
	__u32 found;          /* offset of the option's value, 0: not yet */
};

/* One step of bpf_loop: the next option. Returns 1 to stop. */
static long mss_step(__u32 index, void *state)
{
	struct mss_search *search = state;
	__u32 at = search->at;
	const __u8 *option = packet_transport(search->context, search->packet) + (at & 0x3f);

	if (at + MSS_OPTION_LENGTH > search->end ||
	    (void *)(option + MSS_OPTION_LENGTH) > packet_end(search->context))
		return 1;
	if (option[0] == MSS_OPTION && option[1] == MSS_OPTION_LENGTH) {
		search->found = at + 2;
		return 1;
	}
	if (option[0] == MSS_NOTHING) {
		search->at = at + 1;
		return 0;
	}
	search->at = at + option[1];
	return option[0] == MSS_END || option[1] < 2;
}

/* The packet is a SYN about to be sent by a way of that MTU. Returns 0, or -1 where its checksum cannot be. Invalidates. */
static __noinline int mss_clamp(mp_context *context, const struct packet *packet, __u32 mtu)
{
	__u32 headers = (packet->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct tcphdr);
	__u32 back = mss_way_back(context, packet);
	struct mss_search search = {
		.context = context,
		.packet = packet,
		.at = sizeof(struct tcphdr),
		.end = packet->headers - (packet->l4 - L3),
	};
	__u16 before, after;
	__u8 *value;

	if (!mtu || (back && back < mtu))
		mtu = back;
	if (mtu <= headers)
		return 0;
	bpf_loop(MSS_OPTIONS, mss_step, &search, 0);
	value = packet_transport(context, packet) + (search.found & 0x3f);
	if (!search.found)
		return 0;
	if ((void *)(value + 2) > packet_end(context))
		return 0;
	before = (__u16)value[0] << 8 | value[1];
	if (before <= mtu - headers)
		return 0;
	after = mtu - headers;
	value[0] = after >> 8;
	value[1] = after & 0xff;
	/* At an odd offset its bytes count for the other halves of two words. */
	if (search.found & 1) {
		before = bpf_ntohs(before);
		after = bpf_ntohs(after);
	}
	return bpf_l4_csum_replace(context, packet->l4 + 16, bpf_htons(before), bpf_htons(after), 2) ? -1 : 0;
}

#endif
