/* SPDX-License-Identifier: GPL-2.0 */
/* Turn a packet into the one its flow says: addresses, ports, hop limit, checksums. */
#ifndef MP_REWRITE_H
#define MP_REWRITE_H

#include "checksum.h"
#include "icmp.h"
#include "packet.h"
#include "parse.h"
#include "splice.h"

struct rewrite {
	__u64 addresses;      /* checksum differences */
	__u64 ports;
};

static __always_inline int rewrite_v4(mp_context *context, const struct packet *packet, const struct mp_flow *flow, struct rewrite *change)
{
	const struct mp_address *source = icmp_source(packet, flow);
	struct iphdr *ip = packet_data(context) + L3;
	__u64 sum = 0;
	__u16 old, new;

	if ((void *)(ip + 1) > packet_end(context))
		return -1;
	sum = checksum_replace(sum, ip->saddr, source->word[3]);
	sum = checksum_replace(sum, ip->daddr, flow->destination.word[3]);
	change->addresses = sum;
	ip->saddr = source->word[3];
	ip->daddr = flow->destination.word[3];
	/* TTL and protocol share a 16-bit word of the header checksum. Read and written as that: a processor that is to read a
	 * word of which it has just written a byte has to wait until the byte is in its cache. */
	old = *(__u16 *)&ip->ttl;
	new = old - bpf_htons(0x0100);
	*(__u16 *)&ip->ttl = new;
	sum = checksum_replace(sum, old, new);
	ip->check = checksum_apply(ip->check, sum);
	return 0;
}

static __always_inline int rewrite_v6(mp_context *context, const struct packet *packet, const struct mp_flow *flow, struct rewrite *change)
{
	const struct mp_address *source = icmp_source(packet, flow);
	struct ipv6hdr *ip = packet_data(context) + L3;
	__u64 sum = 0;

	if ((void *)(ip + 1) > packet_end(context))
		return -1;
	for (int i = 0; i < 4; i++) {
		sum = checksum_replace(sum, ip->saddr.in6_u.u6_addr32[i], source->word[i]);
		sum = checksum_replace(sum, ip->daddr.in6_u.u6_addr32[i], flow->destination.word[i]);
		ip->saddr.in6_u.u6_addr32[i] = source->word[i];
		ip->daddr.in6_u.u6_addr32[i] = flow->destination.word[i];
	}
	ip->hop_limit--;
	change->addresses = sum;
	return 0;
}

/* The identifier of an echo is the one port that its header has. */
static __always_inline int rewrite_identifier(mp_context *context, const struct packet *packet, const struct mp_flow *flow,
					      struct rewrite *change)
{
	struct icmp_header *icmp = packet_transport(context, packet);
	__be16 identifier = packet->opens ? flow->source_port : flow->destination_port;

	if ((void *)(icmp + 1) > packet_end(context))
		return -1;
	change->ports = checksum_replace(0, icmp->identifier, identifier);
	icmp->identifier = identifier;
	/* ICMP's checksum has no pseudo header, ICMPv6's has (RFC 4443 section 2.3). */
	if (packet->version == 4)
		change->addresses = 0;
	return 0;
}

static __always_inline int rewrite_ports(mp_context *context, const struct packet *packet, const struct mp_flow *flow,
					 struct rewrite *change)
{
	/* Source, then destination, in packets and flows alike. */
	__u32 *ports = packet_transport(context, packet), wanted = *(const __u32 *)&flow->source_port;

	if ((void *)(ports + 1) > packet_end(context))
		return -1;
	change->ports = checksum_replace(0, *ports, wanted);
	*ports = wanted;
	return 0;
}

/* Of the checksum in the transport header. */
static __always_inline __u32 rewrite_checksum_offset(const struct packet *packet)
{
	if (packet->key.protocol == IPPROTO_TCP)
		return 16;
	return packet->key.protocol == IPPROTO_UDP ? 6 : 2;
}

#ifdef MP_XDP

static __always_inline int rewrite_checksum(mp_context *context, const struct packet *packet, const struct rewrite *change)
{
	__u32 offset = rewrite_checksum_offset(packet);
	__u16 *check = packet_transport(context, packet) + offset;

	if ((void *)(check + 1) > packet_end(context))
		return -1;
	*check = checksum_apply(*check, change->addresses + change->ports);
	/* UDP: a computed zero is sent as all ones (RFC 768). */
	if (packet->key.protocol == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return 0;
}

#else

/* The helpers know whether the buffer holds a whole checksum or only the pseudo header's, with the rest left to the
 * device: only then may a change of ports be skipped. Invalidates. */
static __always_inline int rewrite_checksum(mp_context *context, const struct packet *packet, const struct rewrite *change)
{
	__u32 offset = packet->l4 + rewrite_checksum_offset(packet);
	__u32 addresses = checksum_fold32(change->addresses), ports = checksum_fold32(change->ports);
	__u64 flags = packet->key.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	/* In transit mostly nothing is translated; a helper takes 6 ns. */
	if (!checksum_is_nothing(addresses) &&
	    bpf_l4_csum_replace(context, offset, 0, addresses, BPF_F_PSEUDO_HDR | flags))
		return -1;
	return !checksum_is_nothing(ports) && bpf_l4_csum_replace(context, offset, 0, ports, flags) ? -1 : 0;
}

#endif

static __always_inline int rewrite_link(mp_context *context, const struct packet *packet, const struct mp_flow *flow)
{
	/* Destination, then source, in frames and flows alike. By words, because the compiler copies bytes one by one. */
	const __u32 *from = (const void *)flow->next_hop;
	__u32 *to = packet_data(context);

	if ((void *)to + sizeof(struct ethhdr) > packet_end(context))
		return -1;
	for (int i = 0; i < 2 * ETH_ALEN / 4; i++)
		to[i] = from[i];
	return 0;
}

/* Everything but the link header. Returns 0, or -1 where the bytes are not there. Invalidates. */
static __always_inline int rewrite(mp_context *context, const struct packet *packet, const struct mp_flow *flow)
{
	struct rewrite change = {};
	int failed = packet->version == 4 ? rewrite_v4(context, packet, flow, &change) : rewrite_v6(context, packet, flow, &change);

	if (failed)
		return -1;
	if (packet->icmp_error)
		return icmp_rewrite(context, packet, flow, change.addresses);
	/* Later fragments have no transport header, and the first one's checksum covers them all. */
	if (packet->fragment == MP_LATER_FRAGMENT)
		return 0;
	if (packet_has_ports(packet))
		failed = rewrite_ports(context, packet, flow, &change);
	else
		failed = rewrite_identifier(context, packet, flow, &change);
	if (failed || (flow->flags & MP_FLOW_SPLICED && splice_rewrite(context, packet, flow, &change.ports)))
		return -1;
	return packet->checksum ? rewrite_checksum(context, packet, &change) : 0;
}

#endif
