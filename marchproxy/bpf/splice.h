/* SPDX-License-Identifier: GPL-2.0 */
/* Two TCP connections that carry the same bytes, joined into one flow without sockets.
 *
 * User space accepted the one from the client and opened the one to the backend. What tells them apart beside their tuples is
 * constant from the moment when user space holds no bytes: the distance between sequence numbers, that between timestamp
 * clocks (RFC 7323), and the shifts of windows. `struct mp_splice` has them; acknowledgements and SACK blocks (RFC 2018,
 * RFC 2883) go back by what sequence numbers went forward.
 *
 * While a splice is DRAINING the local sockets still hold bytes that their peers have not acknowledged, or that user space has
 * not read. Each packet then goes two ways: whole and translated to the other side, and as a bare acknowledgement up to the
 * socket that it is addressed to. That copy is made by sending a clone, marked, through the same interface once
 * more: so forwarding is one path with or without it. It carries the numbers that the socket expects, taken from the
 * socket itself: neither data nor FIN are for it, and what the peer acknowledges beyond its last byte is the other side's.
 *
 * A peer hears two voices then, its local socket's and the other side's, and takes a packet for forged whose acknowledgement is
 * more than a window behind what it has heard before (RFC 5961 section 5.2). The socket acknowledges what it has received, no
 * more; the other side may have received less of that, or much more of what came later. So while a splice drains, the other side's
 * acknowledgements are told within bounds (`least`, what the socket has received; `most`, half a window beyond), and windows
 * such that they end where they did, but not before where the socket's own did.
 */
#ifndef MP_SPLICE_H
#define MP_SPLICE_H

#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "divert.h"
#include "parse.h"

#define SPLICE_OPTIONS 40     /* bytes that a TCP header has for options, so there are no more of them */
#define SPLICE_END 0          /* kinds (RFC 9293 section 3.2) */
#define SPLICE_NOTHING 1
#define SPLICE_SACK 5
#define SPLICE_TIMESTAMPS 8
#define SPLICE_TIMESTAMPS_LENGTH 10
#define SPLICE_SACK_EDGES 8   /* of four blocks: more do not fit */
#define SPLICE_TCP 60         /* bytes of the longest TCP header */
#define SPLICE_ALONE 32       /* and of one that has timestamps alone, aligned by two of NOTHING (RFC 7323, appendix A) */
#define SPLICE_ALIGNED 0x0101080au

/* The packet's side in arrays by side. */
static __always_inline __u32 splice_side(const struct mp_flow *flow)
{
	return flow->flags & MP_FLOW_REPLY ? 1 : 0;
}

/* How a SPLICED flow is translated; NULL where its place is another flow's by now. */
static __always_inline struct mp_splice *splice_of(const struct mp_flow *flow)
{
	__u32 index = flow->splice;
	struct mp_splice *splice = bpf_map_lookup_elem(&splices, &index);

	return splice && splice->id == flow->id ? splice : NULL;
}

static __always_inline int splice_is_draining(const struct mp_splice *splice)
{
	return *(const volatile __u32 *)&splice->flags & MP_SPLICE_DRAINING;
}

/* What the flow adds to sequence numbers of its direction. */
static __always_inline __u32 splice_distance(const struct mp_flow *flow)
{
	const struct mp_splice *splice = flow->flags & MP_FLOW_SPLICED ? splice_of(flow) : NULL;

	return splice ? splice->sequence[splice_side(flow)] : 0;
}

/* Bytes of window that a side has been told of already beyond an acknowledgement: taking them back would have it send its next
 * acknowledgement with a number before what its peer has received; and where both do, neither hears the other any more. */
static __always_inline __s32 splice_promised(const struct mp_splice *splice, __u32 side, __u32 told)
{
	__u32 half = splice->most[side] - splice->least[side];

	return splice_is_draining(splice) ? (__s32)(splice->least[side] + 2 * half - told) : 0;
}

/* The window from a field of `shift` in one of `expected`, `more` bytes wider or, negative, narrower, and `promised` bytes at least.
 * Never more than there is, but not zero where there is some: a sender that may send nothing waits for a window that its peer has
 * opened already. */
static __always_inline __be16 splice_window(__be16 field, __u32 shift, __u32 expected, __s32 more, __s32 promised)
{
	__s64 window = ((__s64)bpf_ntohs(field) << (shift & 15)) + more;
	__u64 scaled;

	if (window < promised)
		window = promised;
	if (window <= 0)
		return 0;
	scaled = (__u64)window >> (expected & 15);
	if (!scaled)
		scaled = 1;
	return bpf_htons(scaled > 65535 ? 65535 : scaled);
}

/* What a side may hear now of an acknowledgement that goes to it. */
static __always_inline __u32 splice_bound(struct mp_splice *splice, __u32 side, __u32 acknowledgement)
{
	if (!splice_is_draining(splice))
		return acknowledgement;
	if ((__s32)(acknowledgement - splice->least[side]) < 0)
		return splice->least[side];
	if ((__s32)(acknowledgement - splice->most[side]) <= 0)
		return acknowledgement;
	__sync_fetch_and_or(&splice->flags, MP_SPLICE_HELD);
	return splice->most[side];
}

/* Bytes of sequence space that a packet takes. */
static __always_inline __u32 splice_span(const struct packet *packet)
{
	return packet_payload(packet) + !!(packet->tcp_flags & TCP_FIN);
}

/* Whether all that a packet carries is with the local socket already: its sender has missed an acknowledgement. User space
 * relays it, and so the other side must not have it from here, with a timestamp that is ahead of what the socket sends. */
static __always_inline int splice_is_old(const struct mp_splice *splice, const struct mp_flow *flow, const struct packet *packet)
{
	__u32 span = splice_span(packet);

	return span && (__s32)(packet->sequence + span - splice->least[splice_side(flow)]) <= 0;
}

struct splice_options {
	mp_context *context;
	const struct packet *packet;
	__u64 sum;            /* what words at even offsets change the checksum by */
	__u64 odd;            /* and those at odd ones, whose bytes count for the other halves */
	__u32 at;             /* offset in the TCP header of the next option */
	__u32 end;            /* of the TCP header */
	__u32 sack;           /* added to edges of SACK blocks */
	__u32 least;          /* with `draining`: what the hearer has sent before is none of the blocks' */
	__u32 draining;
	__u32 value;          /* added to TSval */
	__u32 echo;           /* added to TSecr */
};

/* Add to a number in the options, or make it `least` where it would be less; nothing where it is not within them. */
static __always_inline void splice_add(struct splice_options *options, __u32 at, __u32 distance, int bound, __u32 least)
{
	__u8 *bytes = packet_transport(options->context, options->packet) + (at & 0x3f);
	__be32 before, after;
	__u32 moved;

	if (at + 4 > options->end || (void *)(bytes + 4) > packet_end(options->context))
		return;
	__builtin_memcpy(&before, bytes, 4);
	moved = bpf_ntohl(before) + distance;
	if (bound && (__s32)(moved - least) < 0)
		moved = least;
	after = bpf_htonl(moved);
	__builtin_memcpy(bytes, &after, 4);
	if (at & 1)
		options->odd = checksum_replace(options->odd, before, after);
	else
		options->sum = checksum_replace(options->sum, before, after);
}

/* One step of bpf_loop: the next option. Returns 1 to stop. */
static long splice_option(__u32 index, void *state)
{
	struct splice_options *options = state;
	__u32 at = options->at;
	const __u8 *option = packet_transport(options->context, options->packet) + (at & 0x3f);
	__u8 kind, length;

	if (at + 2 > options->end || (void *)(option + 2) > packet_end(options->context) || option[0] == SPLICE_END)
		return 1;
	kind = option[0];
	length = option[1];
	if (kind == SPLICE_NOTHING) {
		options->at = at + 1;
		return 0;
	}
	if (kind == SPLICE_TIMESTAMPS && length == SPLICE_TIMESTAMPS_LENGTH) {
		splice_add(options, at + 2, options->value, 0, 0);
		splice_add(options, at + 6, options->echo, 0, 0);
	} else if (kind == SPLICE_SACK) {
		for (__u32 i = 0; i < SPLICE_SACK_EDGES; i++)
			if (2 + 4 * i + 4 <= length)
				splice_add(options, at + 2 + 4 * i, options->sack, options->draining,
					   options->least + !(i & 1));
	}
	options->at = at + length;
	return length < 2;
}

/* Translate the options. Nearly all packets have the same few, at the same place. */
static __always_inline void splice_options_rewrite(struct splice_options *options)
{
	const __u8 *first = packet_transport(options->context, options->packet) + sizeof(struct tcphdr);
	__be32 word = 0;

	if (options->end == SPLICE_ALONE && (void *)(first + 4) <= packet_end(options->context))
		__builtin_memcpy(&word, first, 4);
	if (word == bpf_htonl(SPLICE_ALIGNED)) {
		splice_add(options, sizeof(struct tcphdr) + 4, options->value, 0, 0);
		splice_add(options, sizeof(struct tcphdr) + 8, options->echo, 0, 0);
	} else if (options->end > sizeof(struct tcphdr)) {
		bpf_loop(SPLICE_OPTIONS, splice_option, options, 0);
	}
}

/* The header of a packet of a SPLICED flow as the other connection has it; ports are the caller's. Adds to `sum` what changes
 * the checksum. Returns 0, or -1 where it cannot be translated. Global, see `parse`. */
__noinline int splice_rewrite(mp_context *context, const struct packet *packet, const struct mp_flow *flow, __u64 *sum)
{
	struct splice_options options = {.context = context, .packet = packet, .at = sizeof(struct tcphdr)};
	__be32 sequence, acknowledgement;
	struct mp_splice *splice;
	struct tcphdr *tcp;
	__u32 side, other, heard = 0, told = 0;
	__s32 promised = 0;
	__be16 window;

	if (!packet || !flow || !sum)
		return -1;
	splice = splice_of(flow);
	tcp = packet_transport(context, packet);
	if (!splice || (void *)(tcp + 1) > packet_end(context))
		return -1;
	side = splice_side(flow);
	other = side ^ 1;
	sequence = bpf_htonl(packet->sequence + splice->sequence[side]);
	/* Without the flag the field means nothing, and zero is what honest senders put there. */
	acknowledgement = tcp->ack_seq;
	if (packet->tcp_flags & TCP_ACK) {
		heard = packet->acknowledgement - splice->sequence[other];
		told = splice_bound(splice, other, heard);
		acknowledgement = bpf_htonl(told);
		promised = splice_promised(splice, other, told);
	}
	window = splice_window(tcp->window, splice->announced[side], splice->expected[side], heard - told, promised);
	options.sum = checksum_replace(options.sum, tcp->seq, sequence);
	options.sum = checksum_replace(options.sum, tcp->ack_seq, acknowledgement);
	options.sum = checksum_replace(options.sum, tcp->window, window);
	tcp->seq = sequence;
	tcp->ack_seq = acknowledgement;
	tcp->window = window;
	options.end = packet->headers - (packet->l4 - L3);
	options.sack = -splice->sequence[other];
	options.draining = splice_is_draining(splice);
	options.least = splice->least[other];
	options.value = splice->timestamp[side];
	options.echo = -splice->timestamp[other];
	splice_options_rewrite(&options);
	/* Swapping the halves of the sum is what swapping the bytes of each word would have come to (RFC 1071). */
	*sum += options.sum + __builtin_bswap16(checksum_fold16(options.odd));
	return 0;
}

#ifndef MP_XDP

/* On a clone that is for the local socket. Nobody else sets marks before packets reach us; those of local senders end where
 * their network namespace does. */
#define SPLICE_MARK 0x4d505550u

/* Have a copy of the packet arrive once more, for the local socket. Invalidates. */
static __always_inline void splice_clone(mp_context *context)
{
	__u32 mark = context->mark;

	context->mark = SPLICE_MARK;
	bpf_clone_redirect(context, context->ifindex, BPF_F_INGRESS);
	context->mark = mark;
}

/* What the local socket that a packet is addressed to expects: its next sequence number, and the last that it has sent. */
static __noinline int splice_expected(mp_context *context, const struct packet *packet, __u32 *sequence, __u32 *sent)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *socket;
	int found = -1;

	if (packet->version == 4) {
		tuple.ipv4.saddr = packet->key.source.word[3];
		tuple.ipv4.daddr = packet->key.destination.word[3];
		tuple.ipv4.sport = packet->key.source_port;
		tuple.ipv4.dport = packet->key.destination_port;
		socket = bpf_sk_lookup_tcp(context, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &packet->key.source, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &packet->key.destination, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = packet->key.source_port;
		tuple.ipv6.dport = packet->key.destination_port;
		socket = bpf_sk_lookup_tcp(context, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!socket)
		return -1;
	tcp = bpf_tcp_sock(socket);
	if (tcp && socket->state != BPF_TCP_LISTEN) {
		*sequence = tcp->rcv_nxt;
		*sent = tcp->snd_nxt;
		found = 0;
	}
	bpf_sk_release(socket);
	return found;
}

/* Whether a reset is about nothing: who sends it has no connection any more, for it ended in order with the local socket after user
 * space had looked at that one last, and answers with it what went on from here. */
static __noinline int splice_is_over(mp_context *context, const struct packet *packet)
{
	__u32 sequence, sent;

	return packet->tcp_flags & TCP_RST && splice_expected(context, packet, &sequence, &sent);
}

/* A TCP header under way, with room for every offset that its options can name. */
struct mp_tcp_header {
	union {
		struct tcphdr header;
		__u8 bytes[68];
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_tcp_header);
} tcp_header SEC(".maps");

/* The sum of a pseudo header with `length` bytes of TCP; addresses as they arrive. */
static __always_inline __u32 splice_pseudo(const struct packet *packet, __u32 length)
{
	struct {
		struct mp_address source, destination;
		__be32 length, next;
	} header = {
		.source = packet->key.source,
		.destination = packet->key.destination,
		.length = bpf_htonl(length),
		.next = bpf_htonl(IPPROTO_TCP),
	};

	/* The prefix of mapped addresses adds up to zero: two words of all ones. */
	return bpf_csum_diff(0, 0, (__be32 *)&header, sizeof(header), 0);
}

/* Shorten what IP says of the packet's length to `length` bytes. */
static __always_inline int splice_shorten(mp_context *context, const struct packet *packet, __u16 length)
{
	__be16 before, after = bpf_htons(length);

	if (packet->version == 6) {
		after = bpf_htons(length - sizeof(struct ipv6hdr));
		return bpf_skb_store_bytes(context, L3 + 4, &after, sizeof(after), BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
	}
	if (bpf_skb_load_bytes(context, L3 + 2, &before, sizeof(before)) ||
	    bpf_l3_csum_replace(context, L3 + 10, before, after, sizeof(after)))
		return -1;
	return bpf_skb_store_bytes(context, L3 + 2, &after, sizeof(after), BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

struct splice_limit {
	struct mp_tcp_header *tcp;
	__u32 at;             /* offset in the header of the next option */
	__u32 end;            /* of the header */
	__u32 sent;
};

static __always_inline void splice_limit_edge(struct splice_limit *limit, __u32 at)
{
	__u8 *bytes = limit->tcp->bytes + (at & 0x3f);
	__be32 edge, sent = bpf_htonl(limit->sent);

	if (at + 4 > limit->end)
		return;
	__builtin_memcpy(&edge, bytes, 4);
	if ((__s32)(bpf_ntohl(edge) - limit->sent) > 0)
		__builtin_memcpy(bytes, &sent, 4);
}

/* One step of bpf_loop: the next option; SACK blocks end where the socket has sent to. Returns 1 to stop. */
static long splice_limit_option(__u32 index, void *state)
{
	struct splice_limit *limit = state;
	__u32 at = limit->at;
	const __u8 *option = limit->tcp->bytes + (at & 0x3f);

	if (at + 2 > limit->end || option[0] == SPLICE_END)
		return 1;
	if (option[0] == SPLICE_NOTHING) {
		limit->at = at + 1;
		return 0;
	}
	if (option[0] == SPLICE_SACK)
		for (__u32 i = 0; i < SPLICE_SACK_EDGES; i++)
			if (2 + 4 * i + 4 <= option[1])
				splice_limit_edge(limit, at + 2 + 4 * i);
	limit->at = at + option[1];
	return option[1] < 2;
}

/* Turn the packet into the acknowledgement that the local socket may hear. Its options stay: SACK and timestamps are those of its
 * own connection. But a block that goes on in what the other side sent would be taken for none (and a duplicate of it, for one
 * of the socket's own): the socket would not know what to send again. */
static __noinline int splice_strip(mp_context *context, const struct packet *packet, __u32 sequence, __u32 sent)
{
	__u32 length = packet->headers - (packet->l4 - L3), zero = 0;
	struct mp_tcp_header *tcp = bpf_map_lookup_elem(&tcp_header, &zero);
	struct splice_limit limit = {.tcp = tcp, .at = sizeof(struct tcphdr), .end = length, .sent = sent};

	barrier_var(length);
	if (!tcp || length < sizeof(tcp->header) || length > SPLICE_TCP)
		return -1;
	__builtin_memset(tcp, 0, sizeof(*tcp));
	if (packet_trim(context, L3 + packet->headers) || splice_shorten(context, packet, packet->headers) ||
	    bpf_skb_load_bytes(context, packet->l4, tcp, length))
		return -1;
	tcp->header.seq = bpf_htonl(sequence);
	if ((__s32)(packet->acknowledgement - sent) > 0)
		tcp->header.ack_seq = bpf_htonl(sent);
	bpf_loop(SPLICE_OPTIONS, splice_limit_option, &limit, 0);
	tcp->header.fin = 0;
	tcp->header.psh = 0;
	tcp->header.urg = 0;
	tcp->header.urg_ptr = 0;
	tcp->header.check = 0;
	tcp->header.check = ~checksum_fold16((__u32)bpf_csum_diff(0, 0, (__be32 *)tcp, sizeof(*tcp),
								 splice_pseudo(packet, length)));
	return bpf_skb_store_bytes(context, packet->l4, tcp, length, BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

/* The copy that `splice_clone` made: up to the local socket, or nowhere. Of resets sockets hear nothing: user space, which
 * sees that the flow has ended, closes them without a word. Returns the action. Global, see `parse`. */
__noinline int splice_pass_up(mp_context *context, struct packet *packet)
{
	const struct mp_settings *current;
	__u32 sequence = 0, sent = 0;

	if (!packet)
		return TC_ACT_SHOT;
	context->mark = 0;
	if (parse(context, packet) != MP_NONE || packet->key.protocol != IPPROTO_TCP || packet->fragment ||
	    (packet->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
		return TC_ACT_SHOT;
	if (splice_expected(context, packet, &sequence, &sent) || splice_strip(context, packet, sequence, sent))
		return TC_ACT_SHOT;
	current = settings_get();
	if (current && current->diverting)
		divert_goes_on(context, packet);
	return TC_ACT_OK;
}

#endif

#endif
