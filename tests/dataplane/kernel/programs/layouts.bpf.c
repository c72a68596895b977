/* SPDX-License-Identifier: GPL-2.0 */
/* One variable of every shared type: what only functions use (keys, events) is in no pipeline object's BTF. */
#include "../../../../marchproxy/bpf/marchproxy.h"

struct mp_flow_key flow_key;
struct mp_flow flow;
struct mp_splice splice;
struct mp_tunnel tunnel;
struct mp_socket socket;
struct mp_amendment amendment;
struct mp_listener_key listener_key;
struct mp_listener listener;
struct mp_rule rule;
struct mp_backend backend;
struct mp_backend_key backend_key;
struct mp_quic_key quic_key;
struct mp_address_key address_key;
struct mp_page_key page_key;
struct mp_page page;
struct mp_transit_rule transit_rule;
struct mp_transit_digest transit_digest;
struct mp_nat_pool nat_pool;
struct mp_bits_key bits_key;
struct mp_settings settings;
struct mp_block_header block_header;
struct mp_limit limit;
struct mp_bucket bucket;
struct mp_limit_set limit_set;
struct mp_limited limited;
struct mp_limit_counter limit_counter;
struct mp_management management;
struct mp_interface interface;
struct mp_own_addresses own_addresses;
struct mp_counter counter;
struct mp_denied_key denied_key;
struct mp_event event;
struct mp_capture_filter capture_filter;
struct mp_capture_spent capture_spent;
struct mp_capture capture;
enum mp_flow_state flow_state;
enum mp_flow_flags flow_flags;
enum mp_splice_flags splice_flags;
enum mp_socket_blockers socket_blockers;
enum mp_balance balance;
enum mp_event_kind event_kind;
enum mp_tier tier;
enum mp_capture_kind capture_kind;
enum mp_capture_wanted capture_wanted;
