/* SPDX-License-Identifier: GPL-2.0 */
/* QUIC that passes through unread: who comes from another address with a connection ID that a backend has chosen stays with it.
 *
 * A connection outlives its client's address (RFC 9000 section 9; mostly a NAT that has given it another port). All that can be read
 * of a packet is its head (RFC 8999): the ID that it is for, and of long headers the one that its sender wants to be called by. The
 * latter is learnt from what backends say; a tuple that no flow is of is then asked for the former. IDs that backends give out later are
 * encrypted: a client that changes to one of these at the same time is a stranger, see docs/HTTP3.md.
 *
 * Backends answer whoever sends a first packet, so an answer proves nothing: what is learnt is an offer, and waits in a table of its
 * own. A client that has heard it names it in its next long header, since handshakes cannot end otherwise (RFC 9000 section 7.2);
 * whoever spoofs its address cannot. From then on the ID is among those that are kept (`quic_named`).
 * dataplane/proxy/quichomes.py does the same for the sockets tier.
 */
#ifndef MP_QUIC_H
#define MP_QUIC_H

#include "maps.h"
#include "packet.h"

#define QUIC_LONG 0x80        /* of the first byte: a long header */
#define QUIC_VERSION 1        /* where the version begins */
#define QUIC_LENGTH 5         /* of the destination's ID in a long header; the ID follows, then the sender's */
#define QUIC_SHORT_ID 1       /* where the destination's ID begins in a short header */
#define QUIC_MOST 20          /* bytes of an ID (RFC 9000 section 17.2) */
#define QUIC_HEAD 6

/* The first bytes of the ID at `offset` as a key: of a short header nobody says how long it is. Returns 0, or -1. */
static __always_inline int quic_key(mp_context *context, struct mp_quic_key *key, __u32 mapping, __u32 offset, __u32 length)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->mapping = mapping;
	if (length >= MP_QUIC_ID) {
		key->length = MP_QUIC_ID;
		return packet_load(context, offset, key->id, MP_QUIC_ID);
	}
	key->length = MP_QUIC_SHORT_ID;
	return length < MP_QUIC_SHORT_ID ? -1 : packet_load(context, offset, key->id, MP_QUIC_SHORT_ID);
}

/* Whether a packet of UDP names an ID of its sender, as few of a connection do. */
static __always_inline int quic_introduces(mp_context *context, const struct packet *packet)
{
	__u8 first;

	return !packet_load(context, packet->l4 + sizeof(struct udphdr), &first, sizeof(first)) && first & QUIC_LONG;
}

/* The backend of an ID that a client names; NULL: none has chosen it. Who names an offer has heard it. */
static __always_inline const struct mp_backend *quic_named(const struct mp_quic_key *key)
{
	const struct mp_backend *offered = bpf_map_lookup_elem(&quic_offers, key);

	if (offered && !bpf_map_update_elem(&quic_homes, key, offered, BPF_ANY))
		bpf_map_delete_elem(&quic_offers, key);
	return bpf_map_lookup_elem(&quic_homes, key);
}

/* A backend's packet: the ID that it wants to be called by leads to it once a client names it. */
static __noinline void quic_learn(mp_context *context, const struct packet *packet, __u32 mapping)
{
	struct mp_backend home = {.port = packet->key.source_port, .weight = 1};
	__u32 offset = packet->l4 + sizeof(struct udphdr);
	struct mp_quic_key key;
	__u8 head[QUIC_HEAD];
	__u8 length;

	if (packet_load(context, offset, head, sizeof(head)) || !(head[0] & QUIC_LONG))
		return;
	/* An offer of other versions names an ID that the client has made up. */
	if (!(head[QUIC_VERSION] | head[QUIC_VERSION + 1] | head[QUIC_VERSION + 2] | head[QUIC_VERSION + 3]))
		return;
	if (head[QUIC_LENGTH] > QUIC_MOST)
		return;
	offset += QUIC_HEAD + head[QUIC_LENGTH];
	if (packet_load(context, offset, &length, 1) || quic_key(context, &key, mapping, offset + 1, length))
		return;
	home.address = packet->key.source;
	home.source = packet->key.destination;
	bpf_map_update_elem(&quic_offers, &key, &home, BPF_ANY);
}

/* The backend that has chosen the ID that a client's packet is for; NULL: none has. */
static __noinline const struct mp_backend *quic_home(mp_context *context, const struct packet *packet, __u32 mapping)
{
	__u32 offset = packet->l4 + sizeof(struct udphdr);
	const struct mp_backend *home;
	struct mp_quic_key key;
	__u8 head[QUIC_HEAD];

	if (packet_load(context, offset, head, sizeof(head)))
		return NULL;
	if (head[0] & QUIC_LONG) {
		if (quic_key(context, &key, mapping, offset + QUIC_HEAD, head[QUIC_LENGTH]))
			return NULL;
		return quic_named(&key);
	}
	if (!quic_key(context, &key, mapping, offset + QUIC_SHORT_ID, MP_QUIC_ID)) {
		home = quic_named(&key);
		if (home)
			return home;
	}
	if (quic_key(context, &key, mapping, offset + QUIC_SHORT_ID, MP_QUIC_SHORT_ID))
		return NULL;
	return quic_named(&key);
}

#endif
