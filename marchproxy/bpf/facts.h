/* SPDX-License-Identifier: GPL-2.0 */
/* Counters and events. */
#ifndef MP_FACTS_H
#define MP_FACTS_H

#include "maps.h"
#include "packet.h"

static __always_inline void facts_count(enum mp_reason reason, const struct packet *packet)
{
	__u32 index = reason;
	struct mp_counter *counter = bpf_map_lookup_elem(&counters, &index);

	if (!counter)
		return;
	counter->packets += packet->segments;
	counter->bytes += packet->wire_bytes;
}

/* An event in the ring, zeroed; NULL where nobody listens, or the ring is full (counted as lost). No wake-up: user space drains four times a second, and a
 * wake-up for every flow would cost more than the flow. */
static __always_inline struct mp_event *facts_reserve(enum mp_event_kind kind)
{
	const struct mp_settings *current = settings_get();
	struct mp_event *event;
	__u32 zero = 0;
	__u64 *lost;

	if (!current || !(current->wanted_events & 1u << kind))
		return NULL;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&lost_events, &zero);
		if (lost)
			*lost += 1;
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_ns();
	event->tier = MP_TIER;
	event->kind = kind;
	return event;
}

static __always_inline void facts_submit(struct mp_event *event)
{
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static __always_inline void facts_denied(const struct packet *packet, enum mp_reason reason, __u32 mapping,
					 __u32 revision)
{
	struct mp_event *event = facts_reserve(MP_EVENT_DENIED);

	if (!event)
		return;
	event->reason = reason;
	event->key = packet->key;
	event->mapping = mapping;
	event->revision = revision;
	event->ifindex = packet_ingress(packet->context);
	facts_submit(event);
}

/* `forward` is client to backend. */
static __always_inline void facts_flow(enum mp_event_kind kind, enum mp_reason reason, const struct mp_flow_key *asked,
				       const struct mp_flow *forward, const struct mp_flow *reply)
{
	struct mp_event *event = facts_reserve(kind);

	if (!event)
		return;
	event->reason = reason;
	event->key = *asked;
	event->id = forward->id;
	event->started = forward->started;
	event->packets[0] = forward->packets;
	event->packets[1] = reply->packets;
	event->bytes[0] = forward->bytes;
	event->bytes[1] = reply->bytes;
	event->backend = forward->destination;
	event->backend_port = forward->destination_port;
	event->mapping = forward->mapping;
	event->revision = forward->revision;
	event->ifindex = reply->ifindex;
	facts_submit(event);
}

#endif
