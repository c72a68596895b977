/* SPDX-License-Identifier: GPL-2.0 */
/* The thin layer between the pipeline and the two kinds of packet it runs on: socket buffers (TC) and frames (XDP).
 *
 * Functions that say "invalidates" may move the packet: every pointer into it must be taken again.
 * Only untagged Ethernet reaches the pipeline, so the network header is always at offset 14.
 */
#ifndef MP_PACKET_H
#define MP_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "marchproxy.h"

#define L3 ETH_HLEN

enum mp_fragment_part {
	MP_WHOLE = 0,
	MP_FIRST_FRAGMENT = 1,
	MP_LATER_FRAGMENT = 2,
};

#ifdef MP_XDP
typedef struct xdp_md mp_context;
#define MP_TIER MP_TIER_XDP
#else
typedef struct __sk_buff mp_context;
#define MP_TIER MP_TIER_TC
#endif

/* What the parser learned. Numbers are in host order unless `__be`.
 *
 * The ports of an ICMP echo are its identifier: the source port of a request, the destination port of a reply (RFC 5508
 * section 3.1 translates it like a port). */
struct packet {
	struct mp_flow_key key;
	__u64 now;            /* when it came in: coarse CLOCK_MONOTONIC, ns */
	__u32 ingress;        /* interface that it came in by */
	__u32 length;         /* IP total length of what we hold: of a segmentation-offloaded buffer, all of it */
	__u32 segments;       /* packets on the wire */
	__u32 wire_bytes;     /* IP bytes on the wire */
	__u32 sequence;       /* TCP */
	__u32 acknowledgement;
	__u32 fragment_id;
	__be16 port_before;   /* towards the backend, of the conversation that this tuple had before; 0: none */
	__u16 l4;             /* offset of the transport header from the frame's start */
	__u16 headers;        /* bytes of IP and transport headers: what each segment repeats */
	__u8 version;         /* 4 or 6 */
	__u8 ttl;
	__u8 tcp_flags;
	__u8 fragment;        /* enum mp_fragment_part */
	__u8 options;         /* IPv4 options or IPv6 extension headers other than the fragment header */
	__u8 checksum;        /* the transport checksum is in use (UDP may leave it out: RFC 768, RFC 6936) */
	__u8 opens;           /* may begin a conversation: TCP's SYN, any datagram, an echo request */
	__u8 icmp_error;      /* enum icmp_error: quotes a packet of the conversation that it is about */
	__u8 quoted_protocol;
	__u16 quoted_l4;      /* offset of the quoted transport header; 0: none, or none that we could have sent */
};

static __always_inline void *packet_data(mp_context *context)
{
	return (void *)(long)context->data;
}

static __always_inline void *packet_end(mp_context *context)
{
	return (void *)(long)context->data_end;
}

static __always_inline __u32 packet_ingress(const mp_context *context)
{
	return context->ingress_ifindex;
}

#ifdef MP_XDP

static __always_inline __u32 packet_length(mp_context *context)
{
	return (__u32)(packet_end(context) - packet_data(context));
}

static __always_inline __u32 packet_segment_size(const mp_context *context)
{
	return 0;
}

static __always_inline __u32 packet_segments(const mp_context *context)
{
	return 1;
}

/* XDP frames are linear. */
static __always_inline void packet_pull(mp_context *context, __u32 bytes)
{
}

/* Addressed to this host on the link. The driver shows whatever is on the wire: what a bridge floods, or all of it while
 * somebody runs tcpdump; and answering a frame that is another host's would end that host's connections. */
static __always_inline int packet_is_ours(mp_context *context)
{
	__u32 ifindex = context->ingress_ifindex;
	const struct mp_interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	const __u16 *wanted = (const void *)interface, *found = packet_data(context);

	return interface && (void *)(found + 3) <= packet_end(context) && found[0] == wanted[0] &&
	       found[1] == wanted[1] && found[2] == wanted[2];
}

/* A tagged frame has another EtherType, and goes up with its tags. */
static __always_inline void packet_untag(mp_context *context)
{
}

static __always_inline int packet_is_tagged(const mp_context *context)
{
	return 0;
}

static __always_inline int packet_is_priority_tagged(const mp_context *context)
{
	return 0;
}

/* Cut to `length` bytes. Invalidates. */
static __always_inline int packet_trim(mp_context *context, __u32 length)
{
	return bpf_xdp_adjust_tail(context, (int)length - (int)packet_length(context));
}

/* Make room in front. Invalidates. */
static __always_inline int packet_grow_head(mp_context *context, __u32 bytes)
{
	return bpf_xdp_adjust_head(context, -(int)bytes);
}

static __always_inline int packet_pass(void)
{
	return XDP_PASS;
}

static __always_inline int packet_drop(void)
{
	return XDP_DROP;
}

/* Not XDP_TX: veth (kernel 6.18) queues such a frame and wakes nobody unless its peer runs an XDP program as well. */
static __always_inline int packet_send_back(mp_context *context)
{
	return bpf_redirect(context->ingress_ifindex, 0);
}

static __always_inline int packet_redirect(__u32 ifindex)
{
	return bpf_redirect(ifindex, 0);
}

#else

static __always_inline __u32 packet_length(mp_context *context)
{
	return context->len;
}

static __always_inline __u32 packet_segment_size(const mp_context *context)
{
	return context->gso_size;
}

static __always_inline __u32 packet_segments(const mp_context *context)
{
	return context->gso_segs ? context->gso_segs : 1;
}

/* Make at least `bytes` (or all there are) directly readable. Invalidates. */
static __always_inline void packet_pull(mp_context *context, __u32 bytes)
{
	__u32 wanted = bytes < context->len ? bytes : context->len;

	if (context->data_end - context->data < wanted)
		bpf_skb_pull_data(context, wanted);
}

/* Addressed to this host on the link, as the kernel's receive path demands before it would route. */
static __always_inline int packet_is_ours(mp_context *context)
{
	return context->pkt_type == PACKET_HOST;
}

static __always_inline int packet_is_tagged(const mp_context *context)
{
	return context->vlan_present;
}

static __always_inline int packet_is_priority_tagged(const mp_context *context)
{
	return context->vlan_present && !(context->vlan_tci & 0xfff);
}

/* Take off priority tags (VLAN 0): the kernel takes such a frame for untagged, however many they are, and so must we, or
 * they would be a way around policy. A third one stays. Invalidates. */
static __always_inline void packet_untag(mp_context *context)
{
	if (packet_is_priority_tagged(context) && !bpf_skb_vlan_pop(context) && packet_is_priority_tagged(context))
		bpf_skb_vlan_pop(context);
}

static __always_inline int packet_trim(mp_context *context, __u32 length)
{
	return bpf_skb_change_tail(context, length, 0);
}

static __always_inline int packet_grow_head(mp_context *context, __u32 bytes)
{
	return bpf_skb_change_head(context, bytes, 0);
}

static __always_inline int packet_pass(void)
{
	return TC_ACT_OK;
}

static __always_inline int packet_drop(void)
{
	return TC_ACT_SHOT;
}

static __always_inline int packet_send_back(mp_context *context)
{
	return bpf_redirect(context->ingress_ifindex, 0);
}

static __always_inline int packet_redirect(__u32 ifindex)
{
	return bpf_redirect(ifindex, 0);
}

#endif

/* The transport header; the mask is the bound that the verifier wants to see, since it lost the parser's. */
static __always_inline void *packet_transport(mp_context *context, const struct packet *packet)
{
	__u32 offset = packet->l4;

	barrier_var(offset);
	return packet_data(context) + (offset & 0x3ff);
}

/* Read a constant number of bytes behind the headers. Returns 0, or -1 where there are fewer. */
static __always_inline int packet_load(mp_context *context, __u32 offset, void *to, __u32 size)
{
#ifdef MP_XDP
	const void *from;

	barrier_var(offset);
	from = packet_data(context) + (offset & 0x3ff);
	if (from + size > packet_end(context))
		return -1;
	__builtin_memcpy(to, from, size);
	return 0;
#else
	return bpf_skb_load_bytes(context, offset, to, size) ? -1 : 0;
#endif
}

static __always_inline int packet_has_ports(const struct packet *packet)
{
	return packet->key.protocol == IPPROTO_TCP || packet->key.protocol == IPPROTO_UDP;
}

/* Bytes after the transport header. */
static __always_inline __u32 packet_payload(const struct packet *packet)
{
	return packet->length - packet->headers;
}

/* The largest IP packet that this becomes on the wire. */
static __always_inline __u32 packet_largest(mp_context *context, const struct packet *packet)
{
	__u32 segment = packet_segment_size(context);

	return segment ? packet->headers + segment : packet->length;
}

static __always_inline int address_is_v4(const struct mp_address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == bpf_htonl(0xffff);
}

static __always_inline int address_is_unset(const struct mp_address *address)
{
	return !address->word[0] && !address->word[1] && !address->word[2] && !address->word[3];
}

static __always_inline int address_equal(const struct mp_address *a, const struct mp_address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline void address_from_v4(struct mp_address *address, __be32 v4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = bpf_htonl(0xffff);
	address->word[3] = v4;
}

#endif
