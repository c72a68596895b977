/* SPDX-License-Identifier: GPL-2.0 */
/* Quick, honest refusal: the packet itself becomes the TCP reset or ICMP error that goes back to its sender.
 *
 * Without one a refused client waits for its timeout. Limited per second and CPU, so that spoofed packets cannot
 * make us flood their victims. Never answers resets, ICMP but echoes, later fragments or packets with options (RFC
 * 1122, 3.2.2).
 */
#ifndef MP_REFUSE_H
#define MP_REFUSE_H

#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"

#define REFUSE_TTL 64

#define ICMP_HOST_UNREACH 1
#define ICMP_FRAG_NEEDED 4
#define ICMP_PKT_FILTERED 13
#define ICMPV6_NO_ROUTE 0
#define ICMPV6_PROHIBITED 1
#define ICMPV6_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3

/* Bytes of transport that an ICMP error carries. RFC 792 wants eight; of TCP the kernel lets no program cut off a
 * checksum field whose sum is still left to the device. */
#define QUOTED_UDP 8
#define QUOTED_TCP 20

struct refusal {
	__u8 v4_type, v4_code, v6_type, v6_code;
	__u32 value;          /* second word of the ICMP header: the MTU */
};

struct pseudo_v4 {
	__be32 source, destination;
	__u8 zero, protocol;
	__be16 length;
};

struct pseudo_v6 {
	struct mp_address source, destination;
	__be32 length;
	__be32 next;
};

static __always_inline int refuse_within_limit(const struct mp_settings *current)
{
	__u32 zero = 0;
	struct mp_spent *spent = bpf_map_lookup_elem(&refusals, &zero);
	__u64 second = bpf_ktime_get_coarse_ns() / 1000000000ull;

	if (!spent)
		return 0;
	if (spent->second != second) {
		spent->second = second;
		spent->sent = 0;
	}
	return spent->sent++ < current->refusals_per_second;
}

/* The answer's link header at `to`, from the one that came at `from` (which may be the same place). */
static __always_inline void refuse_swap_link(struct ethhdr *to, const struct ethhdr *from)
{
	__u8 sender[ETH_ALEN];
	__be16 type = from->h_proto;

	__builtin_memcpy(sender, from->h_source, ETH_ALEN);
	__builtin_memmove(to->h_source, from->h_dest, ETH_ALEN);
	__builtin_memcpy(to->h_dest, sender, ETH_ALEN);
	to->h_proto = type;
}

static __always_inline void refuse_write_v4(struct iphdr *ip, const struct packet *packet, __u16 length, __u8 protocol)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons(length);
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = REFUSE_TTL;
	ip->protocol = protocol;
	ip->saddr = packet->key.destination.word[3];
	ip->daddr = packet->key.source.word[3];
	ip->check = ~checksum_fold16((__u32)bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

static __always_inline void refuse_write_v6(struct ipv6hdr *ip, const struct packet *packet, __u16 length, __u8 next)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = next;
	ip->hop_limit = REFUSE_TTL;
	__builtin_memcpy(&ip->saddr, &packet->key.destination, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &packet->key.source, sizeof(ip->daddr));
}

/* The sum of the pseudo header of an answer of `length` transport bytes (RFC 793 section 3.1, RFC 8200 section 8.1). */
static __always_inline __u32 refuse_pseudo(const struct packet *packet, __u16 length, __u8 protocol)
{
	if (packet->version == 4) {
		struct pseudo_v4 header = {
			.source = packet->key.destination.word[3],
			.destination = packet->key.source.word[3],
			.protocol = protocol,
			.length = bpf_htons(length),
		};

		return bpf_csum_diff(0, 0, (__be32 *)&header, sizeof(header), 0);
	}
	struct pseudo_v6 header = {
		.source = packet->key.destination,
		.destination = packet->key.source,
		.length = bpf_htonl(length),
		.next = bpf_htonl(protocol),
	};

	return bpf_csum_diff(0, 0, (__be32 *)&header, sizeof(header), 0);
}

/* RFC 9293 section 3.10.7.1: a reset for a segment of no connection. */
static __always_inline void refuse_write_reset(struct tcphdr *tcp, const struct packet *packet)
{
	__u32 length = packet_payload(packet) + !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);

	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = packet->key.destination_port;
	tcp->dest = packet->key.source_port;
	tcp->doff = 5;
	tcp->rst = 1;
	if (packet->tcp_flags & TCP_ACK) {
		tcp->seq = bpf_htonl(packet->acknowledgement);
	} else {
		tcp->ack = 1;
		tcp->ack_seq = bpf_htonl(packet->sequence + length);
	}
	tcp->check = ~checksum_fold16((__u32)bpf_csum_diff(0, 0, (__be32 *)tcp, sizeof(*tcp),
							   refuse_pseudo(packet, sizeof(*tcp), IPPROTO_TCP)));
}

static __always_inline int refuse_reset_v4(mp_context *context, const struct packet *packet)
{
	const __u32 size = L3 + sizeof(struct iphdr) + sizeof(struct tcphdr);
	void *answer;

	if (packet_trim(context, size))
		return -1;
	answer = packet_data(context);
	if (answer + size > packet_end(context))
		return -1;
	refuse_swap_link(answer, answer);
	refuse_write_v4(answer + L3, packet, sizeof(struct iphdr) + sizeof(struct tcphdr), IPPROTO_TCP);
	refuse_write_reset(answer + L3 + sizeof(struct iphdr), packet);
	return 0;
}

static __always_inline int refuse_reset_v6(mp_context *context, const struct packet *packet)
{
	const __u32 size = L3 + sizeof(struct ipv6hdr) + sizeof(struct tcphdr);
	void *answer;

	if (packet_trim(context, size))
		return -1;
	answer = packet_data(context);
	if (answer + size > packet_end(context))
		return -1;
	refuse_swap_link(answer, answer);
	refuse_write_v6(answer + L3, packet, sizeof(struct tcphdr), IPPROTO_TCP);
	refuse_write_reset(answer + L3 + sizeof(struct ipv6hdr), packet);
	return 0;
}

static __always_inline int refuse_icmp_v4(mp_context *context, const struct packet *packet, const struct refusal *refusal, __u32 quoted)
{
	const __u32 added = sizeof(struct iphdr) + sizeof(struct icmp_header);
	const __u32 body = sizeof(struct icmp_header) + sizeof(struct iphdr) + quoted;
	const __u32 size = L3 + sizeof(struct iphdr) + body;
	struct icmp_header *icmp;
	void *answer;

	if (packet_trim(context, size - added) || packet_grow_head(context, added))
		return -1;
	answer = packet_data(context);
	if (answer + size > packet_end(context))
		return -1;
	/* The old link header now stands just before the quoted packet. */
	refuse_swap_link(answer, answer + added);
	refuse_write_v4(answer + L3, packet, sizeof(struct iphdr) + body, IPPROTO_ICMP);
	icmp = answer + L3 + sizeof(struct iphdr);
	icmp->type = refusal->v4_type;
	icmp->code = refusal->v4_code;
	icmp->checksum = 0;
	icmp->value = bpf_htonl(refusal->value);
	icmp->checksum = ~checksum_fold16((__u32)bpf_csum_diff(0, 0, (__be32 *)icmp, body, 0));
	return 0;
}

static __always_inline int refuse_icmp_v6(mp_context *context, const struct packet *packet, const struct refusal *refusal, __u32 quoted)
{
	const __u32 added = sizeof(struct ipv6hdr) + sizeof(struct icmp_header);
	const __u32 body = sizeof(struct icmp_header) + sizeof(struct ipv6hdr) + quoted;
	const __u32 size = L3 + sizeof(struct ipv6hdr) + body;
	struct icmp_header *icmp;
	void *answer;

	if (packet_trim(context, size - added) || packet_grow_head(context, added))
		return -1;
	answer = packet_data(context);
	if (answer + size > packet_end(context))
		return -1;
	/* The old link header now stands just before the quoted packet. */
	refuse_swap_link(answer, answer + added);
	refuse_write_v6(answer + L3, packet, body, IPPROTO_ICMPV6);
	icmp = answer + L3 + sizeof(struct ipv6hdr);
	icmp->type = refusal->v6_type;
	icmp->code = refusal->v6_code;
	icmp->checksum = 0;
	icmp->value = bpf_htonl(refusal->value);
	icmp->checksum = ~checksum_fold16((__u32)bpf_csum_diff(0, 0, (__be32 *)icmp, body, refuse_pseudo(packet, body, IPPROTO_ICMPV6)));
	return 0;
}

/* Which ICMP error says `reason`. Types and codes: RFC 792, RFC 1191, RFC 1812, RFC 4443. */
static __always_inline struct refusal refuse_error(enum mp_reason reason, __u32 mtu)
{
	struct refusal refusal = {
		.v4_type = ICMP_DEST_UNREACH, .v4_code = ICMP_PKT_FILTERED,
		.v6_type = ICMPV6_DEST_UNREACH, .v6_code = ICMPV6_PROHIBITED,
	};

	if (reason == MP_TTL_EXPIRED) {
		refusal.v4_type = ICMP_TIME_EXCEEDED;
		refusal.v4_code = 0;
		refusal.v6_type = ICMPV6_TIME_EXCEEDED;
		refusal.v6_code = 0;
	} else if (reason == MP_TOO_BIG) {
		refusal.v4_code = ICMP_FRAG_NEEDED;
		refusal.v6_type = ICMPV6_TOO_BIG;
		refusal.v6_code = 0;
		refusal.value = mtu;
	} else if (reason == MP_NO_ROUTE || reason == MP_REROUTED) {
		refusal.v4_code = ICMP_HOST_UNREACH;
		refusal.v6_code = ICMPV6_NO_ROUTE;
	}
	return refusal;
}

static __always_inline int refuse_icmp(mp_context *context, const struct packet *packet, const struct refusal *refusal)
{
	if (packet->key.protocol == IPPROTO_TCP)
		return packet->version == 4 ? refuse_icmp_v4(context, packet, refusal, QUOTED_TCP) :
					      refuse_icmp_v6(context, packet, refusal, QUOTED_TCP);
	return packet->version == 4 ? refuse_icmp_v4(context, packet, refusal, QUOTED_UDP) :
				      refuse_icmp_v6(context, packet, refusal, QUOTED_UDP);
}

/* What says nothing about the connection, only about one packet or the way at this moment. */
static __always_inline int refuse_is_passing(enum mp_reason reason)
{
	return reason == MP_TTL_EXPIRED || reason == MP_TOO_BIG || reason == MP_NO_ROUTE;
}

/* An echo, which of ICMP alone is answered: a request whatever it is refused for, a reply where the way is at fault. */
static __always_inline int refuse_is_echo(const struct packet *packet, enum mp_reason reason)
{
	if (packet->key.protocol != (packet->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) || packet->icmp_error)
		return 0;
	return packet->opens || (!packet->key.source_port && refuse_is_passing(reason));
}

/* Errors come from the interface that the packet came in by (RFC 1812 section 4.3.2.4), so that a traced way shows us; from
 * where the packet went only while no address is known. What is quoted is in the packet itself, and stays. */
static __always_inline void refuse_as_ourselves(struct packet *packet)
{
	__u32 ifindex = packet->ingress;
	const struct mp_own_addresses *own = bpf_map_lookup_elem(&own_addresses, &ifindex);

	if (own && packet->version == 4 && !address_is_unset(&own->v4))
		packet->key.destination = own->v4;
	if (own && packet->version == 6 && !address_is_unset(&own->v6))
		packet->key.destination = own->v6;
}

/* Answer the sender of a packet that ends with `reason`; the action to return. */
static __noinline int refuse(mp_context *context, struct packet *packet, enum mp_reason reason,
				  const struct mp_settings *current, __u32 mtu)
{
	int reset = packet->key.protocol == IPPROTO_TCP && !refuse_is_passing(reason);
	int failed;

	if (!packet_has_ports(packet) && !refuse_is_echo(packet, reason))
		return packet_drop();
	if (packet->fragment == MP_LATER_FRAGMENT || packet->options || packet->tcp_flags & TCP_RST)
		return packet_drop();
	if (!refuse_within_limit(current))
		return packet_drop();
	if (reset) {
		failed = packet->version == 4 ? refuse_reset_v4(context, packet) : refuse_reset_v6(context, packet);
	} else {
		struct refusal refusal = refuse_error(reason, mtu);

		refuse_as_ourselves(packet);
		failed = refuse_icmp(context, packet, &refusal);
	}
	return failed ? packet_drop() : packet_send_back(context);
}

#endif
