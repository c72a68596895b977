/* SPDX-License-Identifier: GPL-2.0 */
/* ICMP errors of others, translated with the packet that they quote (RFC 5508 section 4, RFC 7915 for ICMPv6).
 *
 * An error goes back to where the quoted packet came from, and that packet is one that we sent out: its tuple reversed is the key
 * under which answers to it arrive. The flow found there rewrites the error as it rewrites answers, and what is quoted
 * the other way round. The length of the quotation (RFC 4884) does not change, nor do extensions behind it.
 *
 * Errors prolong no flow and end none (RFC 5508 REQ-7, RFC 5927: anyone can send one). They are not limited in number beyond
 * what holds for all packets: RFC 1812 section 4.3.2.8 limits those who originate errors. They are never answered.
 */
#ifndef MP_ICMP_H
#define MP_ICMP_H

#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "splice.h"

#define ICMP_QUOTED_TRANSPORT 8 /* bytes of it that every error quotes (RFC 792) */

enum icmp_error {
	ICMP_NO_ERROR = 0,
	ICMP_ERROR = 1,
	ICMP_ERROR_OF_PEER = 2, /* sent by the address that the quoted packet was for, or to be hidden behind it */
};

/* Ends within both the buffer and what IP says: Ethernet padding quotes nothing. */
static __always_inline int icmp_holds(mp_context *context, const struct packet *packet, const void *end)
{
	return end <= packet_end(context) &&
	       end <= packet_data(context) + L3 + (packet->length & 0x1ffff);
}

/* Of the quoted packet: its addresses reversed. Sets where its transport begins, 0 where we could not have sent it. */
static __always_inline enum mp_reason icmp_quoted_v4(mp_context *context, struct packet *packet, struct mp_flow_key *key)
{
	const struct icmp_header *icmp = packet_transport(context, packet);
	const struct iphdr *ip = (const void *)(icmp + 1);

	if (!icmp_holds(context, packet, ip + 1) || ip->version != 4 || ip->ihl < 5)
		return MP_MALFORMED;
	address_from_v4(&key->source, ip->daddr);
	address_from_v4(&key->destination, ip->saddr);
	key->protocol = ip->protocol;
	if (ip->ihl == 5 && !(ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET)))
		packet->quoted_l4 = packet->l4 + sizeof(*icmp) + sizeof(*ip);
	return MP_NONE;
}

static __always_inline enum mp_reason icmp_quoted_v6(mp_context *context, struct packet *packet, struct mp_flow_key *key)
{
	const struct icmp_header *icmp = packet_transport(context, packet);
	const struct ipv6hdr *ip = (const void *)(icmp + 1);
	const struct ipv6_fragment_header *fragment = (const void *)(ip + 1);

	if (!icmp_holds(context, packet, ip + 1) || ip->version != 6)
		return MP_MALFORMED;
	__builtin_memcpy(&key->source, &ip->daddr, sizeof(key->source));
	__builtin_memcpy(&key->destination, &ip->saddr, sizeof(key->destination));
	key->protocol = ip->nexthdr;
	packet->quoted_l4 = packet->l4 + sizeof(*icmp) + sizeof(*ip);
	if (ip->nexthdr != IPPROTO_FRAGMENT)
		return MP_NONE;
	if (!icmp_holds(context, packet, fragment + 1))
		return MP_MALFORMED;
	key->protocol = fragment->next;
	packet->quoted_l4 += sizeof(*fragment);
	if (fragment->offset & bpf_htons(0xfff8))
		packet->quoted_l4 = 0;
	return MP_NONE;
}

static __always_inline void *icmp_quoted_transport(mp_context *context, const struct packet *packet)
{
	__u32 offset = packet->quoted_l4;

	barrier_var(offset);
	return packet_data(context) + (offset & 0x3ff);
}

/* The quoted packet's ports, reversed; an echo's identifier as `struct packet` has it. Clears `quoted_l4` where it has none. */
static __always_inline enum mp_reason icmp_quoted_ports(mp_context *context, struct packet *packet, struct mp_flow_key *key)
{
	const struct icmp_header *icmp = icmp_quoted_transport(context, packet);
	const __be16 *ports = (const void *)icmp;
	int echo = key->protocol == (packet->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);

	if (!echo && key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP) {
		packet->quoted_l4 = 0;
		return MP_NONE;
	}
	if (!icmp_holds(context, packet, (const void *)icmp + ICMP_QUOTED_TRANSPORT))
		return MP_MALFORMED;
	if (!echo) {
		key->source_port = ports[1];
		key->destination_port = ports[0];
	} else if (parse_is_echo(packet, icmp->type, 0)) {
		key->destination_port = icmp->identifier;
	} else if (parse_is_echo(packet, icmp->type, 1)) {
		key->source_port = icmp->identifier;
	} else {
		packet->quoted_l4 = 0;
	}
	return MP_NONE;
}

static __always_inline enum mp_reason icmp_quoted(mp_context *context, struct packet *packet, struct mp_flow_key *key)
{
	enum mp_reason reason;

	/* Both say "echo" and "error" by the outer protocol, and a message of it is what echoes are quoted in. */
	reason = packet->version == 4 ? icmp_quoted_v4(context, packet, key) : icmp_quoted_v6(context, packet, key);
	if (reason != MP_NONE || !packet->quoted_l4)
		return reason;
	return icmp_quoted_ports(context, packet, key);
}

/* Redirects and source quenches are for the first host they meet, and what later RFCs may add has a form that we do not know. */
static __always_inline int icmp_is_translated(mp_context *context, const struct packet *packet)
{
	const struct icmp_header *icmp = packet_transport(context, packet);

	if ((void *)(icmp + 1) > packet_end(context))
		return 0;
	if (packet->version == 6)
		return icmp->type >= ICMPV6_DEST_UNREACH && icmp->type <= ICMPV6_PARAMETER_PROBLEM;
	return icmp->type == ICMP_DEST_UNREACH || icmp->type == ICMP_TIME_EXCEEDED ||
	       icmp->type == ICMP_PARAMETER_PROBLEM;
}

/* The flow that an error goes along. NULL with MP_MALFORMED in `reason`, or without where no flow sent what it quotes. */
static __noinline struct mp_flow *icmp_flow(mp_context *context, struct packet *packet, enum mp_reason *reason)
{
	struct mp_flow_key key = {};
	struct mp_flow *flow;

	if (packet->fragment != MP_WHOLE || !icmp_is_translated(context, packet))
		return NULL;
	*reason = icmp_quoted(context, packet, &key);
	/* Whoever quotes a packet of ours tells its sender, which also says that the quotation holds no IPv4 address in disguise. */
	if (*reason != MP_NONE || !packet->quoted_l4 || !address_equal(&key.destination, &packet->key.destination))
		return NULL;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		flow = bpf_map_lookup_elem(&opening, &key);
	if (!flow)
		return NULL;
	packet->quoted_protocol = key.protocol;
	/* Towards servers the client's side stays hidden, its routers too, where the client is (RFC 5508 REQ-5); towards clients
	 * routers show themselves, or a traced way would be one hop over and over. */
	if (address_equal(&key.source, &packet->key.source) ||
	    (!(flow->flags & MP_FLOW_REPLY) && !address_equal(&key.source, &flow->source)))
		packet->icmp_error = ICMP_ERROR_OF_PEER;
	return flow;
}

/* The source that a packet has on its way on. */
static __always_inline const struct mp_address *icmp_source(const struct packet *packet, const struct mp_flow *flow)
{
	return packet->icmp_error == ICMP_ERROR ? &packet->key.source : &flow->source;
}

/* What is quoted came from the flow's destination and went to its source: put them back. Returns 0 with what it changed
 * added to `sum`, and to `addresses` what a transport checksum covers; or -1. */
static __always_inline int icmp_restore_v4(mp_context *context, const struct packet *packet, const struct mp_flow *flow, __u64 *addresses,
					   __u64 *sum)
{
	struct iphdr *ip = packet_transport(context, packet) + sizeof(struct icmp_header);
	__u16 check;

	if ((void *)(ip + 1) > packet_end(context))
		return -1;
	*addresses = checksum_replace(0, ip->saddr, flow->destination.word[3]);
	*addresses = checksum_replace(*addresses, ip->daddr, flow->source.word[3]);
	ip->saddr = flow->destination.word[3];
	ip->daddr = flow->source.word[3];
	check = checksum_apply(ip->check, *addresses);
	*sum = checksum_replace(*sum + *addresses, ip->check, check);
	ip->check = check;
	return 0;
}

static __always_inline int icmp_restore_v6(mp_context *context, const struct packet *packet, const struct mp_flow *flow, __u64 *addresses,
					   __u64 *sum)
{
	struct ipv6hdr *ip = packet_transport(context, packet) + sizeof(struct icmp_header);

	if ((void *)(ip + 1) > packet_end(context))
		return -1;
	*addresses = 0;
	for (int i = 0; i < 4; i++) {
		*addresses = checksum_replace(*addresses, ip->saddr.in6_u.u6_addr32[i], flow->destination.word[i]);
		*addresses = checksum_replace(*addresses, ip->daddr.in6_u.u6_addr32[i], flow->source.word[i]);
		ip->saddr.in6_u.u6_addr32[i] = flow->destination.word[i];
		ip->daddr.in6_u.u6_addr32[i] = flow->source.word[i];
	}
	*sum += *addresses;
	return 0;
}

/* The sequence number of a quoted packet of two joined connections, which its sender looks at (RFC 5927 section 4.1). It came
 * the other way, so what that way adds is taken off. */
static __always_inline void icmp_restore_sequence(void *field, const struct packet *packet, const struct mp_flow *flow, __u64 *sum)
{
	const struct mp_splice *splice;
	__be32 *sequence = field;
	__be32 sent;

	if (!(flow->flags & MP_FLOW_SPLICED) || packet->quoted_protocol != IPPROTO_TCP)
		return;
	splice = splice_of(flow);
	if (!splice)
		return;
	sent = bpf_htonl(bpf_ntohl(*sequence) - splice->sequence[splice_side(flow) ^ 1]);
	*sum = checksum_replace(*sum, *sequence, sent);
	*sequence = sent;
}

/* Ports of the quoted packet, or the identifier of an echo. Adds to `sum`; -1 where they are not there. */
static __always_inline int icmp_restore_ports(mp_context *context, const struct packet *packet, const struct mp_flow *flow, __u64 *sum)
{
	struct icmp_header *icmp = icmp_quoted_transport(context, packet);
	__be16 *ports = (void *)icmp;
	__be16 identifier;

	if ((void *)icmp + ICMP_QUOTED_TRANSPORT > packet_end(context))
		return -1;
	if (packet->quoted_protocol == IPPROTO_TCP || packet->quoted_protocol == IPPROTO_UDP) {
		*sum = checksum_replace(*sum, ports[0], flow->destination_port);
		*sum = checksum_replace(*sum, ports[1], flow->source_port);
		ports[0] = flow->destination_port;
		ports[1] = flow->source_port;
		icmp_restore_sequence(ports + 2, packet, flow, sum);
		return 0;
	}
	identifier = parse_is_echo(packet, icmp->type, 0) ? flow->destination_port : flow->source_port;
	*sum = checksum_replace(*sum, icmp->identifier, identifier);
	icmp->identifier = identifier;
	return 0;
}

/* The quoted transport checksum by what it covers, where it is quoted and in use. Adds to `sum`. */
static __always_inline void icmp_restore_checksum(mp_context *context, const struct packet *packet, __u64 covered, __u64 *sum)
{
	__u32 offset = packet->quoted_protocol == IPPROTO_TCP ? 16 : packet->quoted_protocol == IPPROTO_UDP ? 6 : 2;
	__u16 *check = icmp_quoted_transport(context, packet) + offset;
	__u16 right;

	if ((void *)(check + 1) > packet_end(context) || !icmp_holds(context, packet, check + 1))
		return;
	if (packet->quoted_protocol == IPPROTO_UDP && !*check)
		return;
	right = checksum_apply(*check, covered);
	if (packet->quoted_protocol == IPPROTO_UDP && !right)
		right = 0xffff;
	*sum = checksum_replace(*sum, *check, right);
	*check = right;
}

/* The message of an error whose IP header is rewritten already; `outer` is what that changed of its addresses.
 *
 * Written directly in both tiers: no one leaves the checksum of an ICMP error to a device. Returns 0 or -1. */
static __noinline int icmp_rewrite(mp_context *context, const struct packet *packet, const struct mp_flow *flow, __u64 outer)
{
	struct icmp_header *icmp;
	__u64 addresses, ports = 0, sum = 0;
	int failed = packet->version == 4 ? icmp_restore_v4(context, packet, flow, &addresses, &sum) :
					    icmp_restore_v6(context, packet, flow, &addresses, &sum);

	if (failed || icmp_restore_ports(context, packet, flow, &ports))
		return -1;
	sum += ports;
	if (packet->quoted_protocol == IPPROTO_ICMP)
		addresses = 0;
	icmp_restore_checksum(context, packet, addresses + ports, &sum);
	icmp = packet_transport(context, packet);
	if ((void *)(icmp + 1) > packet_end(context))
		return -1;
	/* ICMP's checksum has no pseudo header, ICMPv6's has (RFC 4443 section 2.3). */
	icmp->checksum = checksum_apply(icmp->checksum, packet->version == 4 ? sum : sum + outer);
	return 0;
}

#endif
