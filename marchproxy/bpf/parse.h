/* SPDX-License-Identifier: GPL-2.0 */
/* From bytes to `struct packet`. Reads, never writes.
 *
 * Returns MP_NONE when the packet is one the pipeline decides about, otherwise how it ends: MP_MALFORMED (dropped),
 * MP_UNSUPPORTED (TCP or UDP behind headers we do not read; never forwarded) or MP_PASSED_TO_HOST (not ours to judge:
 * ARP, multicast, neighbour discovery, DHCP, other VLANs).
 */
#ifndef MP_PARSE_H
#define MP_PARSE_H

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "packet.h"

#define PARSE_LINEAR 128      /* enough for Ethernet, IP with IPv4's longest options, and TCP */
#define PARSE_CHAIN 576       /* and for the longest chain of extension headers that is read */
#define PARSE_CHAIN_END 512
#define IPV6_EXTENSIONS 6
#define IP_FRAGMENT_MORE 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct ipv6_fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* <linux/icmp.h> drags in the C library's headers, which have no BPF form. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	union {
		__be32 value;
		__be16 identifier; /* of an echo; its sequence number follows */
	};
};

#define ICMP_ECHO_REPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_REDIRECT 5
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PARAMETER_PROBLEM 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129

/* The hash of the key reads words; of one that was written in parts it has to wait until they are in the cache. */
static __always_inline void parse_ports(struct packet *packet, const void *transport)
{
	*(__u32 *)&packet->key.source_port = *(const __u32 *)transport;
}

static __always_inline enum mp_reason parse_tcp(mp_context *context, struct packet *packet)
{
	void *end = packet_end(context);
	const struct tcphdr *tcp = packet_transport(context, packet);
	__u32 held = packet->length - (packet->l4 - L3);
	__u32 header;
	__u8 flags;

	if ((void *)(tcp + 1) > end)
		return MP_MALFORMED;
	header = tcp->doff * 4;
	if (header < sizeof(*tcp) || header > held)
		return MP_MALFORMED;
	flags = ((const __u8 *)tcp)[13];
	/* Opening while closing, or nothing at all: no stack sends these, scanners do. */
	if ((flags & TCP_SYN && flags & (TCP_FIN | TCP_RST)) || !(flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)))
		return MP_MALFORMED;
	parse_ports(packet, tcp);
	packet->tcp_flags = flags;
	packet->opens = (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	packet->sequence = bpf_ntohl(tcp->seq);
	packet->acknowledgement = bpf_ntohl(tcp->ack_seq);
	packet->checksum = 1;
	packet->headers = packet->l4 - L3 + header;
	packet->wire_bytes += (packet->segments - 1) * packet->headers;
	return MP_NONE;
}

static __always_inline enum mp_reason parse_udp(mp_context *context, struct packet *packet)
{
	void *end = packet_end(context);
	const struct udphdr *udp = packet_transport(context, packet);
	__u32 held = packet->length - (packet->l4 - L3);
	__u32 length;

	if ((void *)(udp + 1) > end || held < sizeof(*udp))
		return MP_MALFORMED;
	length = bpf_ntohs(udp->len);
	/* A first fragment carries less than the length says; a segmentation-offloaded buffer may say 0 or its first. */
	if (packet->fragment == MP_WHOLE && !packet_segment_size(context) &&
	    (length < sizeof(*udp) || length > held))
		return MP_MALFORMED;
	parse_ports(packet, udp);
	packet->checksum = udp->check != 0;
	packet->opens = 1;
	packet->headers = packet->l4 - L3 + sizeof(*udp);
	packet->wire_bytes += (packet->segments - 1) * packet->headers;
	return MP_NONE;
}

static __always_inline int parse_is_echo(const struct packet *packet, __u8 type, int reply)
{
	if (packet->key.protocol == IPPROTO_ICMP)
		return type == (reply ? ICMP_ECHO_REPLY : ICMP_ECHO_REQUEST);
	return type == (reply ? ICMPV6_ECHO_REPLY : ICMPV6_ECHO_REQUEST);
}

/* RFC 792 and RFC 4443: of ICMPv6, types below 128 are errors. */
static __always_inline int parse_is_error(const struct packet *packet, __u8 type)
{
	if (packet->key.protocol == IPPROTO_ICMPV6)
		return type < 128;
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
	       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
}

static __always_inline enum mp_reason parse_icmp(mp_context *context, struct packet *packet)
{
	const struct icmp_header *icmp = packet_transport(context, packet);

	if ((void *)(icmp + 1) > packet_end(context) || packet->length - (packet->l4 - L3) < sizeof(*icmp))
		return MP_MALFORMED;
	packet->headers = packet->l4 - L3 + sizeof(*icmp);
	packet->checksum = 1;
	packet->icmp_error = parse_is_error(packet, icmp->type);
	if (parse_is_echo(packet, icmp->type, 0)) {
		packet->key.source_port = icmp->identifier;
		packet->opens = 1;
	} else if (parse_is_echo(packet, icmp->type, 1)) {
		packet->key.destination_port = icmp->identifier;
	} else {
		/* Of no conversation: an echo has only one port. */
		packet->key.source_port = packet->key.destination_port = 0xffff;
	}
	return MP_NONE;
}

static __always_inline enum mp_reason parse_transport(mp_context *context, struct packet *packet)
{
	if (packet->fragment == MP_LATER_FRAGMENT)
		return MP_NONE;
	if (packet->key.protocol == IPPROTO_TCP)
		return parse_tcp(context, packet);
	if (packet->key.protocol == IPPROTO_UDP)
		return parse_udp(context, packet);
	if (packet->key.protocol == (packet->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return parse_icmp(context, packet);
	return MP_NONE;
}

/* Sources that no host may have on a wire (RFC 1122 section 3.2.1.3), and broadcast or multicast destinations. */
static __always_inline enum mp_reason parse_v4_addresses(__be32 source, __be32 destination)
{
	__u32 from = bpf_ntohl(source), to = bpf_ntohl(destination);

	if ((from >> 24) == 127 || (to >> 24) == 127 || (from >> 28) == 14 || from == 0xffffffff)
		return MP_MALFORMED;
	if (from == 0 || to == 0 || (to >> 28) >= 14)
		return MP_PASSED_TO_HOST;
	return MP_NONE;
}

static __always_inline enum mp_reason parse_v4(mp_context *context, struct packet *packet)
{
	void *end = packet_end(context);
	const struct iphdr *ip = packet_data(context) + L3;
	enum mp_reason reason;
	__u32 header, total;
	__u16 fragment;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return MP_MALFORMED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	/* A buffer larger than 64 KiB says 0 and means all of it (BIG TCP). */
	if (packet_segment_size(context) && !total)
		total = packet_length(context) - L3;
	if (header < sizeof(*ip) || total < header || total > packet_length(context) - L3)
		return MP_MALFORMED;
	reason = parse_v4_addresses(ip->saddr, ip->daddr);
	if (reason != MP_NONE)
		return reason;
	address_from_v4(&packet->key.source, ip->saddr);
	address_from_v4(&packet->key.destination, ip->daddr);
	packet->key.protocol = ip->protocol;
	packet->version = 4;
	packet->ttl = ip->ttl;
	packet->options = header != sizeof(*ip);
	packet->length = total;
	packet->wire_bytes = total;
	packet->l4 = L3 + header;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & (IP_FRAGMENT_MORE | IP_FRAGMENT_OFFSET)) {
		packet->fragment = fragment & IP_FRAGMENT_OFFSET ? MP_LATER_FRAGMENT : MP_FIRST_FRAGMENT;
		packet->fragment_id = ip->id;
	}
	return parse_transport(context, packet);
}

static __always_inline enum mp_reason parse_v6_addresses(const struct packet *packet)
{
	const struct mp_address *from = &packet->key.source, *to = &packet->key.destination;

	/* On the wire a mapped address is a disguise: it would share a key with the real IPv4 address (RFC 4942, 2.2). */
	if (address_is_v4(from) || address_is_v4(to))
		return MP_MALFORMED;
	if ((bpf_ntohl(from->word[0]) >> 24) == 0xff)
		return MP_MALFORMED;
	if (!from->word[0] && !from->word[1] && !from->word[2] && from->word[3] == bpf_htonl(1))
		return MP_MALFORMED;
	if (!to->word[0] && !to->word[1] && !to->word[2])
		return MP_MALFORMED;
	if (!from->word[0] && !from->word[1] && !from->word[2] && !from->word[3])
		return MP_PASSED_TO_HOST;
	/* Multicast, and link-local on either side: never forwarded (RFC 4291, 2.5.6). */
	if ((bpf_ntohl(to->word[0]) >> 24) == 0xff || (bpf_ntohl(to->word[0]) >> 22) == 0x3fa ||
	    (bpf_ntohl(from->word[0]) >> 22) == 0x3fa)
		return MP_PASSED_TO_HOST;
	return MP_NONE;
}

/* Walk the extension headers (RFC 8200 section 4); leaves `l4` and `key.protocol` at the transport. */
static __always_inline enum mp_reason parse_v6_extensions(mp_context *context, struct packet *packet, __u8 next)
{
	void *data = packet_data(context);
	void *end = packet_end(context);
	__u32 offset = L3 + sizeof(struct ipv6hdr);

	for (int i = 0; i < IPV6_EXTENSIONS; i++) {
		const struct ipv6_opt_hdr *option = data + offset;

		if (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING) {
			if ((void *)(option + 1) > end)
				return MP_MALFORMED;
			next = option->nexthdr;
			offset += (option->hdrlen + 1) * 8;
			packet->options = 1;
		} else if (next == IPPROTO_FRAGMENT) {
			const struct ipv6_fragment_header *fragment = data + offset;

			if ((void *)(fragment + 1) > end || packet->fragment)
				return MP_MALFORMED;
			next = fragment->next;
			offset += sizeof(*fragment);
			packet->fragment_id = fragment->id;
			if (bpf_ntohs(fragment->offset) & 0xfff8)
				packet->fragment = MP_LATER_FRAGMENT;
			else if (bpf_ntohs(fragment->offset) & 1)
				packet->fragment = MP_FIRST_FRAGMENT;
			if (packet->fragment == MP_LATER_FRAGMENT)
				break;
		} else {
			break;
		}
		if (offset > PARSE_CHAIN_END)
			return MP_MALFORMED;
	}
	if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING)
		return MP_MALFORMED;
	packet->key.protocol = next;
	packet->l4 = offset;
	return offset - L3 > packet->length ? MP_MALFORMED : MP_NONE;
}

static __always_inline enum mp_reason parse_v6(mp_context *context, struct packet *packet)
{
	void *end = packet_end(context);
	const struct ipv6hdr *ip = packet_data(context) + L3;
	enum mp_reason reason;
	__u8 next;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return MP_MALFORMED;
	packet->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (packet_segment_size(context) && !ip->payload_len)
		packet->length = packet_length(context) - L3;
	if (packet->length > packet_length(context) - L3)
		return MP_MALFORMED;
	__builtin_memcpy(&packet->key.source, &ip->saddr, sizeof(packet->key.source));
	__builtin_memcpy(&packet->key.destination, &ip->daddr, sizeof(packet->key.destination));
	packet->version = 6;
	packet->ttl = ip->hop_limit;
	packet->wire_bytes = packet->length;
	reason = parse_v6_addresses(packet);
	if (reason != MP_NONE)
		return reason;
	next = ip->nexthdr;
	if (next != IPPROTO_TCP && next != IPPROTO_UDP)
		packet_pull(context, PARSE_CHAIN);
	reason = parse_v6_extensions(context, packet, next);
	return reason != MP_NONE ? reason : parse_transport(context, packet);
}

/* Whether all headers of a usual TCP or UDP packet can be read as they are. What a sender of this machine hands over has its headers
 * there and its payload elsewhere; and since it keeps a clone, pulling some of that in would have the whole head copied. */
static __always_inline int parse_is_readable(mp_context *context)
{
	const struct ethhdr *ethernet = packet_data(context);
	const void *end = packet_end(context);
	const struct iphdr *v4 = (const void *)(ethernet + 1);
	const struct ipv6hdr *v6 = (const void *)(ethernet + 1);
	const struct tcphdr *tcp;
	__u8 protocol;

	if ((const void *)(v4 + 1) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP) && v4->ihl == 5) {
		tcp = (const void *)(v4 + 1);
		protocol = v4->protocol;
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6) && (const void *)(v6 + 1) <= end) {
		tcp = (const void *)(v6 + 1);
		protocol = v6->nexthdr;
	} else {
		return 0;
	}
	if (protocol == IPPROTO_UDP)
		return (const void *)tcp + sizeof(struct udphdr) <= end;
	return protocol == IPPROTO_TCP && (const void *)(tcp + 1) <= end && (const void *)tcp + tcp->doff * 4 <= end;
}

/* `packet` must be zeroed. */
static __noinline enum mp_reason parse_frame(mp_context *context, struct packet *packet)
{
	const struct ethhdr *ethernet;

	packet->segments = packet_segments(context);
	packet_untag(context);
	if (!parse_is_readable(context))
		packet_pull(context, PARSE_LINEAR);
	ethernet = packet_data(context);
	if ((void *)(ethernet + 1) > packet_end(context) || packet_is_priority_tagged(context))
		return MP_MALFORMED;
	if (packet_is_tagged(context) || !packet_is_ours(context))
		return MP_PASSED_TO_HOST;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return parse_v4(context, packet);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return parse_v6(context, packet);
	return MP_PASSED_TO_HOST;
}

/* Global: of such a function the verifier remembers nothing but that it was safe (kernel 5.6), and so follows what comes
 * after once instead of once for every kind of packet. */
__noinline int parse(mp_context *context, struct packet *packet)
{
	if (!packet)
		return MP_MALFORMED;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->now = bpf_ktime_get_coarse_ns();
	packet->ingress = packet_ingress(context);
	return parse_frame(context, packet);
}

#endif
