/* The frames that Sluice's own bench makes (bench/src/frames.rs and traffic.rs), by the same numbers. Whether they are
 * the same is compared in every run, by a checksum. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BURST 32
#define CHUNK 8192
#define PAIRS 32
#define PORTS 60000
#define FIRST_TURNS 4
#define ADMITTED_PORT 443

enum step { OPEN, ANSWER, FROM_CLIENT, FROM_SERVER };
enum kind { KIND_OPEN, KIND_ANSWER, KIND_CONFIRM, KIND_ESTABLISHED, KIND_FIRST };

struct traffic {
    bool is_v6;
    uint64_t turns;
    uint64_t random;
    uint64_t burst;
};

static void traffic_start(struct traffic *traffic, bool is_v6, uint64_t flows, uint64_t seed)
{
    *traffic = (struct traffic){ is_v6, (flows + PAIRS - 1) / PAIRS, seed * 2 + 1, 0 };
}

static uint64_t next_random(struct traffic *traffic)
{
    uint64_t mixed = traffic->random += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = value >> 8;
    at[1] = value;
}

static void put_address(uint8_t *at, bool is_v6, unsigned eni)
{
    static const uint8_t v6[14] = { 0x20, 0x01, 0x0d, 0xb8 };
    static const uint8_t v4[2] = { 10, 0 };
    unsigned bytes = is_v6 ? sizeof(v6) : sizeof(v4);
    memcpy(at, is_v6 ? v6 : v4, bytes);
    put16(at + bytes, eni);
}

static unsigned frame_bytes(bool is_v6)
{
    return is_v6 ? 14 + 40 + 20 : 64;
}

/* How many ports of each server flows go to, one after the other. */
static unsigned services = 1;

static void write_frame(uint8_t *frame, bool is_v6, uint64_t number, enum step step)
{
    static const uint8_t flags[] = { [OPEN] = 0x02, [ANSWER] = 0x12, [FROM_CLIENT] = 0x10, [FROM_SERVER] = 0x10 };
    uint64_t pair = number % PAIRS, turn = number / PAIRS, peer = (turn / PORTS + pair) % PAIRS;
    unsigned client = pair * 2 + 1, server = peer * 2 + 2, port = 1024 + turn % PORTS;
    bool from_client = step == OPEN || step == FROM_CLIENT;
    unsigned from = from_client ? client : server, to = from_client ? server : client;
    unsigned bytes = frame_bytes(is_v6);
    memset(frame, 0, bytes);
    memcpy(frame, (const uint8_t[]){ 0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0 }, 10);
    put16(frame + 10, from);
    uint8_t *transport;
    if (is_v6) {
        memcpy(frame + 12, (const uint8_t[]){ 0x86, 0xdd, 0x60, 0, 0, 0, 0, bytes - 54, 6, 64 }, 10);
        put_address(frame + 22, true, from);
        put_address(frame + 38, true, to);
        transport = frame + 54;
    } else {
        memcpy(frame + 12, (const uint8_t[]){ 8, 0, 0x45, 0, 0, bytes - 14, 0, 0, 0x40, 0, 64, 6 }, 12);
        put_address(frame + 26, false, from);
        put_address(frame + 30, false, to);
        transport = frame + 34;
    }
    unsigned service = ADMITTED_PORT - port % services;
    put16(transport, from_client ? port : service);
    put16(transport + 2, from_client ? service : port);
    memcpy(transport + 12, (const uint8_t[]){ 0x50, flags[step], 0xff, 0xff }, 4);
}

/* Writes the next burst: all of it is sent by one interface. */
static void write_burst(struct traffic *traffic, uint8_t *const frames[BURST], enum kind kind)
{
    static const enum step steps[] = { OPEN, ANSWER, FROM_CLIENT };
    uint64_t number = traffic->burst++;
    bool is_client = kind == KIND_ESTABLISHED ? number % 2 == 0 : kind != KIND_ANSWER;
    uint64_t place = (kind == KIND_ESTABLISHED ? number / 2 : number) % PAIRS;
    for (unsigned position = 0; position < BURST; position++) {
        uint64_t turn = number / PAIRS * BURST + position;
        enum step step = OPEN;
        if (kind == KIND_ESTABLISHED) {
            turn = next_random(traffic) % traffic->turns;
            step = is_client ? FROM_CLIENT : FROM_SERVER;
        } else if (kind == KIND_FIRST) {
            turn %= traffic->turns * FIRST_TURNS;
        } else {
            turn %= traffic->turns;
            step = steps[kind];
        }
        uint64_t pair = is_client ? place : (place + PAIRS - turn / PORTS % PAIRS) % PAIRS;
        write_frame(frames[position], traffic->is_v6, turn * PAIRS + pair, step);
    }
}

static uint64_t frames_checksum(uint8_t *const *frames, bool is_v6)
{
    uint64_t sum = 0xcbf29ce484222325;
    for (unsigned i = 0; i < CHUNK; i++)
        for (unsigned byte = 0; byte < frame_bytes(is_v6); byte++)
            sum = (sum ^ frames[i][byte]) * 0x100000001b3;
    return sum;
}

#endif
