/* The parts of a stateful switch that DPDK has, put together: frames are read, their sessions found by rte_hash in bulk,
 * what has none is classified by rte_acl and remembered, records and counters are kept. One judgement a packet; no check
 * of the sender, no route, no new Ethernet header. */
#ifndef PATH_H
#define PATH_H

#include "frames.h"
#include "rules.h"
#include <rte_cycles.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>

struct key_v4 {
    uint32_t addresses[2];
    uint16_t ports[2];
    uint32_t protocol;
};
struct key_v6 {
    uint8_t addresses[2][16];
    uint16_t ports[2];
    uint32_t protocol;
};
union key {
    struct key_v4 v4;
    struct key_v6 v6;
};

struct session {
    uint64_t bytes[2];
    uint32_t packets[2];
    uint32_t last_seen;
    uint32_t result;
    uint8_t state, opener_swapped;
} __rte_cache_aligned;

/* What opened when, oldest first. */
struct opened {
    union key key;
    uint32_t hash;
};

struct path {
    struct rte_hash *sessions_by_key;
    struct session *sessions;
    struct rte_acl_ctx *acl;
    struct opened *opened;
    uint64_t opened_next, live, live_max;
    uint64_t packets, bytes, dropped;
    void *output[CHUNK];
    unsigned output_count;
};

/* What a packet says. */
struct parsed {
    uint16_t bytes;
    uint8_t flags, swapped, fine;
};

enum { FREE, OPENING, ANSWERED, ESTABLISHED, CLOSING_OPENER, CLOSING_RESPONDER, CLOSED, OTHER };
enum { SEES_SYN, SEES_SYN_ACK, SEES_ACK, SEES_FIN, SEES_RST };
static uint8_t next_state[8][16];
static uint8_t class_of_flags[256];

static void make_states(void)
{
    for (unsigned flags = 0; flags < 256; flags++)
        class_of_flags[flags] = flags & 4 ? SEES_RST : flags & 1 ? SEES_FIN : !(flags & 2) ? SEES_ACK
                                : flags & 16 ? SEES_SYN_ACK : SEES_SYN;
    for (unsigned state = 0; state < 8; state++)
        for (unsigned input = 0; input < 16; input++) {
            bool from_opener = input < 8;
            uint8_t *next = &next_state[state][input];
            *next = state;
            if (state == OPENING && !from_opener && input % 8 == SEES_SYN_ACK)
                *next = ANSWERED;
            else if (state == ANSWERED && from_opener && input % 8 == SEES_ACK)
                *next = ESTABLISHED;
            else if (input % 8 == SEES_FIN)
                *next = state == (from_opener ? CLOSING_RESPONDER : CLOSING_OPENER) ? CLOSED
                        : from_opener ? CLOSING_OPENER : CLOSING_RESPONDER;
            else if (input % 8 == SEES_RST)
                *next = CLOSED;
        }
}

static __rte_always_inline void key_in_order(union key *key, struct parsed *parsed, bool is_v6, const uint8_t *source)
{
    unsigned bytes = is_v6 ? 16 : 4;
    const uint8_t *ports = source + 2 * bytes;
    uint16_t source_port, destination_port;
    memcpy(&source_port, ports, 2);
    memcpy(&destination_port, ports + 2, 2);
    int order;
    if (is_v6) {
        order = memcmp(source, source + 16, 16);
    } else {
        uint32_t one, other;
        memcpy(&one, source, 4);
        memcpy(&other, source + 4, 4);
        order = one < other ? -1 : one > other;
    }
    bool swapped = order > 0 || (order == 0 && source_port > destination_port);
    parsed->swapped = swapped;
    if (is_v6) {
        memcpy(key->v6.addresses[swapped], source, 16);
        memcpy(key->v6.addresses[!swapped], source + 16, 16);
        key->v6.ports[swapped] = source_port;
        key->v6.ports[!swapped] = destination_port;
        key->v6.protocol = 6;
    } else {
        memcpy(&key->v4.addresses[swapped], source, 4);
        memcpy(&key->v4.addresses[!swapped], source + 4, 4);
        key->v4.ports[swapped] = source_port;
        key->v4.ports[!swapped] = destination_port;
        key->v4.protocol = 6;
    }
}

static __rte_always_inline void parse(const uint8_t *frame, unsigned length, bool is_v6, union key *key,
                                      struct parsed *parsed)
{
    parsed->bytes = length;
    parsed->fine = 0;
    if (is_v6) {
        unsigned total = (frame[18] << 8 | frame[19]) + 40;
        if (length < 74 || frame[12] != 0x86 || frame[13] != 0xdd || frame[14] >> 4 != 6 || frame[20] != 6
            || total + 14 > length || frame[54 + 12] < 0x50)
            return;
        parsed->flags = frame[54 + 13];
        key_in_order(key, parsed, true, frame + 22);
    } else {
        unsigned total = frame[16] << 8 | frame[17];
        if (length < 54 || frame[12] != 8 || frame[13] != 0 || frame[14] != 0x45 || frame[23] != 6
            || ((frame[20] & 0x3f) | frame[21]) != 0 || total + 14 > length || total < 40 || frame[34 + 12] < 0x50)
            return;
        parsed->flags = frame[34 + 13];
        key_in_order(key, parsed, false, frame + 26);
    }
    parsed->fine = 1;
}

static __rte_always_inline void end_oldest(struct path *path)
{
    if (path->live < path->live_max) {
        path->live++;
        return;
    }
    struct opened *oldest = &path->opened[path->opened_next];
    int32_t position = rte_hash_del_key_with_hash(path->sessions_by_key, &oldest->key, oldest->hash);
    if (position >= 0)
        path->sessions[position].state = FREE;
}

/* Classifies packets without a session, and remembers those that are accepted. */
static __rte_always_inline void open_sessions(struct path *path, bool is_v6, uint8_t *const *frames,
                                              const union key *keys, const hash_sig_t *hashes,
                                              const struct parsed *parsed, const unsigned *missed, unsigned count,
                                              int32_t *positions)
{
    struct acl_key_v6 asked[BURST];
    const uint8_t *asked_at[BURST];
    uint32_t results[BURST];
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *frame = frames[missed[i]];
        asked_at[i] = (const uint8_t *)&asked[i];
        asked[i].protocol = 6;
        if (is_v6) {
            memcpy(asked[i].far_side, frame + 38, 20 - 4);
            memcpy(&asked[i].source_port, frame + 54, 4);
        } else {
            struct acl_key_v4 *asked_v4 = (struct acl_key_v4 *)&asked[i];
            memcpy(asked_v4->far_side, frame + 30, 4);
            memcpy(&asked_v4->source_port, frame + 34, 4);
        }
    }
    rte_acl_classify(path->acl, asked_at, results, count, 1);
    for (unsigned i = 0; i < count; i++) {
        unsigned packet = missed[i];
        if (!accepts(results[i]))
            continue;
        end_oldest(path);
        int32_t position = rte_hash_add_key_with_hash(path->sessions_by_key, &keys[packet], hashes[packet]);
        if (position < 0)
            continue;
        path->opened[path->opened_next] = (struct opened){ keys[packet], hashes[packet] };
        if (++path->opened_next == path->live_max)
            path->opened_next = 0;
        positions[packet] = position;
        path->sessions[position] =
            (struct session){ .state = OPENING, .opener_swapped = parsed[packet].swapped, .result = results[i] };
    }
}

static __rte_always_inline void forward_family(struct path *path, uint8_t *const *frames, bool is_v6)
{
    union key keys[BURST];
    const void *keys_at[BURST];
    hash_sig_t hashes[BURST];
    struct parsed parsed[BURST];
    int32_t positions[BURST];
    unsigned missed[BURST], missed_count = 0;
    uint32_t now = rte_rdtsc() >> 27;
    for (unsigned i = 0; i < BURST; i++) {
        parse(frames[i], frame_bytes(is_v6), is_v6, &keys[i], &parsed[i]);
        keys_at[i] = &keys[i];
        hashes[i] = rte_hash_crc(&keys[i], is_v6 ? sizeof(struct key_v6) : sizeof(struct key_v4), 0);
    }
    rte_hash_lookup_with_hash_bulk(path->sessions_by_key, keys_at, hashes, BURST, positions);
    for (unsigned i = 0; i < BURST; i++) {
        if (positions[i] >= 0)
            rte_prefetch0(&path->sessions[positions[i]]);
        else if (parsed[i].fine)
            missed[missed_count++] = i;
    }
    if (missed_count)
        open_sessions(path, is_v6, frames, keys, hashes, parsed, missed, missed_count, positions);
    for (unsigned i = 0; i < BURST; i++) {
        if (unlikely(positions[i] < 0)) {
            path->dropped++;
            continue;
        }
        struct session *session = &path->sessions[positions[i]];
        unsigned side = parsed[i].swapped != session->opener_swapped;
        session->state = next_state[session->state][class_of_flags[parsed[i].flags] + 8 * side];
        session->last_seen = now;
        session->packets[side]++;
        session->bytes[side] += parsed[i].bytes;
        path->packets++;
        path->bytes += parsed[i].bytes;
        path->output[path->output_count++] = frames[i];
    }
}

static void forward(struct path *path, uint8_t *const *frames, bool is_v6)
{
    if (is_v6)
        forward_family(path, frames, true);
    else
        forward_family(path, frames, false);
}

static void make_path(struct path *path, uint64_t flows, bool is_v6, struct rte_acl_ctx *acl)
{
    struct rte_hash_parameters parameters = {
        .name = "sessions", .entries = flows * 4 / 3 + 64, .key_len = is_v6 ? sizeof(struct key_v6) : sizeof(struct key_v4),
        .hash_func = rte_hash_crc,
    };
    make_states();
    memset(path, 0, sizeof(*path));
    path->sessions_by_key = rte_hash_create(&parameters);
    path->sessions = rte_zmalloc("records", sizeof(struct session) * (parameters.entries + 1), 2 << 20);
    path->opened = rte_zmalloc("opened", sizeof(struct opened) * flows, 64);
    path->live_max = flows;
    path->acl = acl;
    if (!path->sessions_by_key || !path->sessions || !path->opened)
        fail("there is no memory for the sessions");
}

#endif
