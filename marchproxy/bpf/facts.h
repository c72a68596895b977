/* SPDX-License-Identifier: GPL-2.0 */
/* Counters and events. */
#ifndef MP_FACTS_H
#define MP_FACTS_H

#include "capture.h"
#include "maps.h"
#include "packet.h"

#define FACTS_SECOND 1000000000ull
#define FACTS_BLOCKED 1000 /* blocked sources that are looked at for an event, for each second and CPU */

static __always_inline void facts_count(enum mp_reason reason, const struct packet *packet)
{
	__u32 index = reason;
	struct mp_counter *counter = bpf_map_lookup_elem(&counters, &index);

	if (!counter)
		return;
	counter->packets += packet->segments;
	counter->bytes += packet->wire_bytes;
}

/* An event in the ring, zeroed; NULL where nobody listens, or the ring is full (counted as lost). No wake-up: user space
 * drains four times a second, and a wake-up for every flow would cost more than the flow. */
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

/* Count a packet that is refused (`kind` DENIED), or that would be and is let through (AUDITED). */
static __noinline int facts_count_denied(const struct packet *packet, enum mp_event_kind kind, enum mp_reason reason,
					 __u32 mapping)
{
	struct mp_denied_key key = {.mapping = mapping, .reason = reason, .kind = kind};
	struct mp_counter *counter = bpf_map_lookup_elem(&denied, &key);
	struct mp_counter first = {.packets = packet->segments, .bytes = packet->wire_bytes};

	if (counter) {
		counter->packets += first.packets;
		counter->bytes += first.bytes;
	} else {
		bpf_map_update_elem(&denied, &key, &first, BPF_NOEXIST);
	}
	return 0;
}

/* Whether this CPU may tell of one more this second; if not, it is counted as lost. */
static __always_inline int facts_within_limit(const struct mp_settings *current, __u64 now)
{
	__u32 zero = 0;
	struct mp_spent *spent = bpf_map_lookup_elem(&denied_events, &zero);
	__u64 *lost;

	if (!spent)
		return 0;
	if (spent->second != now / FACTS_SECOND) {
		spent->second = now / FACTS_SECOND;
		spent->sent = 0;
	}
	if (spent->sent++ < current->denied_events_per_second)
		return 1;
	lost = bpf_map_lookup_elem(&lost_events, &zero);
	if (lost)
		*lost += 1;
	return 0;
}

/* How many packets an event made now would stand for; 0: none is to be made. A client that tries the same again is
 * told of once in a while, and all together at most as often as the settings say: a scan must not drown who listens, and
 * one flood must not use up what others are told with. */
static __always_inline __u64 facts_repeats(const struct mp_repeat_key *key, const struct mp_settings *current,
					   __u32 segments)
{
	__u64 now = bpf_ktime_get_ns();
	struct mp_repeat *held = bpf_map_lookup_elem(&repeats, key);
	struct mp_repeat first = {.told = now};
	__u64 count;

	if (held && now - held->told < current->repeat_ms * 1000000ull) {
		__sync_fetch_and_add(&held->more, segments);
		return 0;
	}
	if (!facts_within_limit(current, now))
		return 0;
	if (!held) {
		bpf_map_update_elem(&repeats, key, &first, BPF_ANY);
		return segments;
	}
	count = held->more + segments;
	held->told = now;
	held->more = 0;
	return count;
}

/* Tell of such a packet, unless it repeats what was told a moment ago. */
static __noinline int facts_tell_denied(const struct packet *packet, enum mp_event_kind kind, enum mp_reason reason,
					__u32 mapping, const struct mp_settings *current)
{
	struct mp_repeat_key key = {
		.mapping = mapping,
		.destination_port = packet->key.destination_port,
		.protocol = packet->key.protocol,
		.reason = reason,
		.kind = kind,
	};
	struct mp_event *event;
	__u64 count;

	if (!(current->wanted_events & 1u << kind))
		return 0;
	key.source = packet->key.source;
	key.destination = packet->key.destination;
	count = facts_repeats(&key, current, packet->segments);
	event = count ? facts_reserve(kind) : NULL;
	if (!event)
		return 0;
	event->reason = reason;
	event->key = packet->key;
	event->mapping = mapping;
	event->revision = current->revision;
	event->ifindex = packet->ingress;
	event->attempts = count;
	facts_submit(event);
	return 0;
}

/* Whether one more drop of a blocked source is worth an event. They are counted, every one; but a flood of them must not
 * cost an event each, nor fill the ring. */
static __always_inline int facts_wants_blocked(const struct packet *packet)
{
	__u32 zero = 0;
	struct mp_spent *told = bpf_map_lookup_elem(&block_reports, &zero);
	/* A second of 1.07: a drop is cheap only without a division. */
	__u64 second = packet->now >> 30;

	if (!told)
		return 0;
	if (told->second != second) {
		told->second = second;
		told->sent = 0;
	}
	return told->sent++ < FACTS_BLOCKED;
}

static __always_inline void facts_refused(mp_context *context, const struct packet *packet, enum mp_event_kind kind,
					  enum mp_reason reason, __u32 mapping, const struct mp_settings *current)
{
	if (capture_is_on(current))
		capture_refused(context, packet, kind, reason, mapping);
	facts_count_denied(packet, kind, reason, mapping);
	if (reason != MP_BLOCKED_SOURCE || facts_wants_blocked(packet))
		facts_tell_denied(packet, kind, reason, mapping, current);
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
	event->spliced = !!(forward->flags & MP_FLOW_SPLICED);
	facts_submit(event);
}

#endif
