// SPDX-License-Identifier: GPL-2.0
/* What user space needs for a handoff and can get from no system call, as programs that are run and never attached.
 *
 * The frame that they are given is a question behind fourteen bytes of link header, and comes back with the answer. The kernel's
 * own structs are read by the names of their fields, wherever this kernel has them (CO-RE).
 *
 * TCP_REPAIR would tell the sequence numbers as well, but while a queue is chosen for it the kernel marks as sent what it
 * does not send, and an acknowledgement that arrives meanwhile costs a retransmission timeout. Timestamps it tells not at all.
 */
#include <linux/tcp.h>

#include "packet.h"

#define QUESTION ETH_HLEN

#define __kernel_struct __attribute__((preserve_access_index))

struct rb_root {
	void *rb_node;
} __kernel_struct;

struct tcp_options_received {
	__u32 ts_recent;
} __kernel_struct;

struct tcp_sock {
	struct rb_root out_of_order_queue;
	struct tcp_options_received rx_opt;
	__u16 tcp_header_len;
	__u16 urg_data;
	__u32 write_seq, snd_nxt, snd_una, snd_wnd, rcv_wnd, rcv_nxt, copied_seq, mss_cache;
	void *md5sig_info, *ao_info;
} __kernel_struct;

struct inet_connection_sock {
	void *icsk_ulp_ops;
} __kernel_struct;

struct sock_common {
	volatile unsigned char skc_state;
} __kernel_struct;

struct net_device {
	int ifindex;
} __kernel_struct;

struct dst_entry {
	struct net_device *dev;
} __kernel_struct;

struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	int sk_rx_dst_ifindex;
} __kernel_struct;

static __always_inline __u32 handoff_blockers(const struct tcp_sock *tcp)
{
	__u32 blockers = 0;

	if (tcp->out_of_order_queue.rb_node)
		blockers |= MP_SOCKET_REORDERED;
	if (tcp->urg_data)
		blockers |= MP_SOCKET_URGENT;
	/* Where the kernel was built without them there is nothing to ask. */
	if (__builtin_preserve_field_info(tcp->md5sig_info, 2) && tcp->md5sig_info)
		blockers |= MP_SOCKET_SIGNED;
	if (__builtin_preserve_field_info(tcp->ao_info, 2) && tcp->ao_info)
		blockers |= MP_SOCKET_SIGNED;
	if (((const struct inet_connection_sock *)tcp)->icsk_ulp_ops)
		blockers |= MP_SOCKET_LAYERED;
	return blockers;
}

/* The interface that the peer is at: by which its packets come in, or before there were any, ours go out. */
static __always_inline __u32 handoff_ifindex(const struct sock *socket)
{
	const struct dst_entry *way = socket->sk_dst_cache;

	if (socket->sk_rx_dst_ifindex)
		return socket->sk_rx_dst_ifindex;
	return way && way->dev ? way->dev->ifindex : 0;
}

static __always_inline void handoff_answer(struct mp_socket *answer, const struct tcp_sock *tcp)
{
	const struct sock *socket = (const struct sock *)tcp;

	answer->found = 1;
	answer->state = socket->__sk_common.skc_state;
	answer->written = tcp->write_seq;
	answer->sent = tcp->snd_nxt;
	answer->acknowledged = tcp->snd_una;
	answer->received = tcp->rcv_nxt;
	answer->read = tcp->copied_seq;
	answer->window = tcp->snd_wnd;
	answer->own_window = tcp->rcv_wnd;
	answer->segment = tcp->mss_cache + tcp->tcp_header_len - sizeof(struct tcphdr);
	answer->timestamp = tcp->rx_opt.ts_recent;
	answer->ifindex = handoff_ifindex(socket);
	answer->blockers = handoff_blockers(tcp);
}

static __always_inline struct bpf_sock *handoff_find(struct __sk_buff *context, const struct mp_flow_key *key)
{
	struct bpf_sock_tuple tuple = {};

	if (address_is_v4(&key->source)) {
		tuple.ipv4.saddr = key->source.word[3];
		tuple.ipv4.daddr = key->destination.word[3];
		tuple.ipv4.sport = key->source_port;
		tuple.ipv4.dport = key->destination_port;
		return bpf_skc_lookup_tcp(context, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, &key->source, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, &key->destination, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = key->source_port;
	tuple.ipv6.dport = key->destination_port;
	return bpf_skc_lookup_tcp(context, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Ask a local socket (struct mp_socket). */
SEC("tc")
int marchproxy_socket(struct __sk_buff *context)
{
	struct mp_socket answer = {};
	struct tcp_sock *tcp;
	struct bpf_sock *socket;

	if (bpf_skb_load_bytes(context, QUESTION, &answer.key, sizeof(answer.key)))
		return TC_ACT_SHOT;
	socket = handoff_find(context, &answer.key);
	if (socket) {
		tcp = bpf_skc_to_tcp_sock(socket);
		if (tcp)
			handoff_answer(&answer, tcp);
		bpf_sk_release(socket);
	}
	return bpf_skb_store_bytes(context, QUESTION, &answer, sizeof(answer), 0) ? TC_ACT_SHOT : TC_ACT_OK;
}

/* Add to one direction of a flow what user space knows and packets go on changing (struct mp_amendment). */
SEC("tc")
int marchproxy_amend(struct __sk_buff *context)
{
	struct mp_amendment amendment = {};
	struct mp_flow *flow;

	if (bpf_skb_load_bytes(context, QUESTION, &amendment, sizeof(amendment)))
		return TC_ACT_SHOT;
	flow = bpf_map_lookup_elem(&flows, &amendment.key);
	if (!flow || flow->id != amendment.id)
		return TC_ACT_SHOT;
	__sync_fetch_and_add(&flow->packets, amendment.packets);
	__sync_fetch_and_add(&flow->bytes, amendment.bytes);
	if (amendment.flags & MP_FLOW_PEER_FIN)
		flow->peer_fin_ack = amendment.peer_fin_ack;
	flow->flags |= amendment.flags;
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
