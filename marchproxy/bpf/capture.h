/* SPDX-License-Identifier: GPL-2.0 */
/* Packets for somebody who wants to look at them: chosen ones, whole or cut, with what was decided about them.
 *
 * While nobody captures this costs one look at a bit of the settings, which are at hand. The perf buffer, unlike the ring of events, is there
 * only while somebody reads it: when a reader dies, the kernel takes its memory out of the map. The helper copies a
 * packet wherever its bytes lie, in socket buffers and frames alike.
 */
#ifndef MP_CAPTURE_H
#define MP_CAPTURE_H

#include "maps.h"
#include "packet.h"

#define CAPTURE_SECOND 1000000000ull

/* Who talks to whom, whichever way the packet goes. */
struct capture_ends {
	const struct mp_address *client;
	const struct mp_address *asked;    /* by the client */
	const struct mp_address *backend;
	__be16 client_port;
	__be16 asked_port;
	__be16 backend_port;
};

static __always_inline int capture_is_on(const struct mp_settings *current)
{
	return !!(current->wanted_events & MP_CAPTURING);
}

/* Which of the wanted prefixes hold an address: MP_CAPTURE_SOURCE and the like. */
static __always_inline __u32 capture_prefixes_of(const struct mp_address *address)
{
	struct mp_capture_prefix key = {.prefix_length = 128, .address = *address};
	const __u32 *found = bpf_map_lookup_elem(&capture_prefixes, &key);

	return found ? *found : 0;
}

static __always_inline int capture_is_mapping(const struct mp_capture_filter *filter, __u32 mapping)
{
	for (__u32 i = 0; i < MP_CAPTURE_MAPPINGS; i++)
		if (mapping && filter->mappings[i] == mapping)
			return 1;
	return 0;
}

static __always_inline int capture_fits(const struct mp_capture_filter *filter, const struct capture_ends *ends,
					__u8 protocol)
{
	__u32 found = 0;

	if (filter->protocol && filter->protocol != protocol && filter->protocol_v6 != protocol)
		return 0;
	if (filter->port && filter->port != ends->client_port && filter->port != ends->asked_port &&
	    filter->port != ends->backend_port)
		return 0;
	if (filter->wanted & (MP_CAPTURE_SOURCE | MP_CAPTURE_SERVICE))
		found |= capture_prefixes_of(ends->client) & (MP_CAPTURE_SOURCE | MP_CAPTURE_SERVICE);
	if (filter->wanted & (MP_CAPTURE_DESTINATION | MP_CAPTURE_SERVICE)) {
		found |= capture_prefixes_of(ends->asked) & (MP_CAPTURE_DESTINATION | MP_CAPTURE_SERVICE);
		found |= capture_prefixes_of(ends->backend) & MP_CAPTURE_SERVICE;
	}
	return (filter->wanted & ~MP_CAPTURE_MAPPING & ~found) == 0;
}

/* Whether one more packet may be taken this second; if not, it is counted. */
static __always_inline int capture_is_due(const struct mp_capture_filter *filter, __u64 now)
{
	__u64 second = now / CAPTURE_SECOND;
	__u32 zero = 0;
	struct mp_capture_spent *spent = bpf_map_lookup_elem(&capture_spent, &zero);

	if (!spent)
		return 0;
	if (spent->second != second) {
		spent->second = second;
		spent->taken = 0;
	}
	if (__sync_fetch_and_add(&spent->taken, 1) < filter->rate)
		return 1;
	__sync_fetch_and_add(&spent->missed, 1);
	return 0;
}

static __always_inline const struct mp_capture_filter *capture_filter_get(const struct packet *packet)
{
	__u32 zero = 0;
	const struct mp_capture_filter *filter = bpf_map_lookup_elem(&capture_filter, &zero);

	/* Who reads goes on saying so: after a daemon that was killed nothing is left running. */
	return filter && packet->now < filter->until ? filter : NULL;
}

static __always_inline int capture_wants(const struct mp_capture_filter *filter, const struct capture_ends *ends,
					 const struct packet *packet, enum mp_capture_kind kind, enum mp_reason reason,
					 __u32 mapping)
{
	if (!(filter->kinds & 1u << kind) || !(filter->reasons >> (reason & 63) & 1))
		return 0;
	if (filter->wanted & MP_CAPTURE_MAPPING && !capture_is_mapping(filter, mapping))
		return 0;
	return capture_fits(filter, ends, packet->key.protocol) && capture_is_due(filter, packet->now);
}

static __always_inline void capture_submit(mp_context *context, const struct mp_capture_filter *filter,
					   const struct packet *packet, struct mp_capture *record)
{
	__u32 length = packet_length(context);
	struct mp_capture_spent *spent;
	__u32 zero = 0, taken;

	/* Of the two pointers it is the difference of, the verifier lets none be put aside as 32 bits. */
	barrier_var(length);
	taken = length < filter->snap ? length : filter->snap;
	record->time = bpf_ktime_get_ns();
	record->length = length;
	record->taken = taken;
	record->segments = packet->segments;
	record->tier = MP_TIER;
	if (!bpf_perf_event_output(context, &captured, (__u64)taken << 32 | BPF_F_CURRENT_CPU, record, sizeof(*record)))
		return;
	spent = bpf_map_lookup_elem(&capture_spent, &zero);
	if (spent)
		__sync_fetch_and_add(&spent->missed, 1);
}

static __always_inline enum mp_reason capture_reason(const struct mp_flow *flow)
{
	return flow->flags & MP_FLOW_SPLICED ? MP_HANDED_OFF : MP_FORWARDED;
}

static __always_inline void capture_describe(struct mp_capture *record, const struct mp_flow *flow)
{
	record->id = flow->id;
	record->mapping = flow->mapping;
	record->reason = capture_reason(flow);
	record->reply = !!(flow->flags & MP_FLOW_REPLY);
}

/* A packet of a flow, as it came. Returns 1 if it is taken, and is to be taken once more as it leaves. Global, see `parse`. */
__noinline int capture_came(mp_context *context, const struct packet *packet, const struct mp_flow *flow)
{
	struct mp_capture record = {.kind = MP_CAPTURE_CAME};
	const struct mp_capture_filter *filter;
	struct capture_ends ends;

	if (!packet || !flow)
		return 0;
	filter = capture_filter_get(packet);
	if (!filter)
		return 0;
	if (flow->flags & MP_FLOW_REPLY)
		ends = (struct capture_ends){&flow->destination, &flow->source, &packet->key.source,
					     flow->destination_port, flow->source_port, packet->key.source_port};
	else
		ends = (struct capture_ends){&packet->key.source, &packet->key.destination, &flow->destination,
					     packet->key.source_port, packet->key.destination_port,
					     flow->destination_port};
	if (!capture_wants(filter, &ends, packet, MP_CAPTURE_CAME, capture_reason(flow), flow->mapping))
		return 0;
	capture_describe(&record, flow);
	record.ifindex = packet->ingress;
	capture_submit(context, filter, packet, &record);
	return 1;
}

/* The same packet, rewritten. `resolved`: its link addresses are those that it leaves with. */
__noinline int capture_left(mp_context *context, const struct packet *packet, const struct mp_flow *flow, __u32 resolved)
{
	struct mp_capture record = {.kind = MP_CAPTURE_LEFT};
	const struct mp_capture_filter *filter;

	if (!packet || !flow)
		return 0;
	filter = capture_filter_get(packet);
	if (!filter)
		return 0;
	capture_describe(&record, flow);
	record.ifindex = flow->ifindex;
	record.unresolved = !resolved;
	capture_submit(context, filter, packet, &record);
	return 0;
}

/* A packet that is refused, or that audit lets through instead. */
__noinline int capture_refused(mp_context *context, const struct packet *packet, enum mp_event_kind kind,
			       enum mp_reason reason, __u32 mapping)
{
	struct mp_capture record = {.kind = kind == MP_EVENT_AUDITED ? MP_CAPTURE_AUDITED : MP_CAPTURE_DENIED};
	const struct mp_capture_filter *filter;
	struct capture_ends ends;

	if (!packet)
		return 0;
	filter = capture_filter_get(packet);
	if (!filter)
		return 0;
	ends = (struct capture_ends){&packet->key.source, &packet->key.destination, &packet->key.destination,
				     packet->key.source_port, packet->key.destination_port,
				     packet->key.destination_port};
	if (!capture_wants(filter, &ends, packet, record.kind, reason, mapping))
		return 0;
	record.mapping = mapping;
	record.reason = reason;
	record.ifindex = packet->ingress;
	capture_submit(context, filter, packet, &record);
	return 0;
}

#endif
