/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gossip core as its host sees it: life cycle, time, dispatch of messages, own announcements,
 * the view and its counters. The protocol is in the files named in core.h.
 */
#include "core.h"

#include <string.h>

/* Called later than this after a deadline, the host was not running: what happened meanwhile says
 * nothing about others (Lifeguard; D-13). Shorter delays are ordinary load. */
#define PAUSE_US 500000
/* Load alone is spread at most this often, so that a whole busy mesh sends ten such updates a
 * second: in periods, by the number of members. */
#define LOAD_PERIODS_MIN 5
#define LOAD_STEP        32
#define LOG_WINDOW_US    1000000
#define LOG_MAX          10

/* ---- helpers of all files ---- */

void *gossip__alloc(struct gossip *g, void *old, size_t count, size_t item_bytes)
{
    size_t bytes;
    if (size_mul(count, item_bytes, &bytes) != 0 || bytes == 0)
        return NULL;
    return g->env.alloc(g->env.host, old, bytes);
}

uint32_t gossip__seq(struct gossip *g)
{
    if (++g->last_seq == 0)
        g->last_seq = 1;
    return g->last_seq;
}

uint64_t gossip__between(struct gossip *g, uint64_t low, uint64_t high)
{
    ASSERT(low <= high && high - low < UINT64_MAX);
    return low + prng_below(&g->prng, high - low + 1);
}

uint32_t gossip__milli_log10(uint32_t n)
{
    ASSERT(n >= 1);
    unsigned whole = 31u - (unsigned)__builtin_clz(n);
    uint64_t fraction = ((uint64_t)n << 16 >> whole) - 65536; /* linear between powers of two */
    return (uint32_t)((((uint64_t)whole << 16) + fraction) * 30103 / 100 >> 16);
}

static const char *state_name(enum member_state state)
{
    static const char names[][8] = {"unknown", "alive", "suspect", "leaving", "dead", "left"};
    return state <= MEMBER_LEFT ? names[state] : "?";
}

void gossip__log(struct gossip *g, const char *what, uint32_t index)
{
    if (g->now_us - g->log_window_us >= LOG_WINDOW_US) {
        g->log_window_us = g->now_us;
        g->log_count = 0;
    }
    if (g->log_count++ >= LOG_MAX)
        return;
    char id[SHORT_HEX_BYTES];
    log_to(&g->env, LOG_DEBUG, "gossip: %s node=%s state=%s incarnation=%llu members=%u", what,
           short_hex(gossip__id(g, index)->bytes, id),
           state_name((enum member_state)gossip__node(g, index)->state),
           (unsigned long long)gossip__record(g, index)->incarnation, (unsigned)gossip_count(g));
}

/* ---- time ---- */

/* Own load is known to have changed by enough: when it may be spread. */
static uint64_t load_deadline(const struct gossip *g)
{
    uint8_t load = gossip__self(g)->load, wanted = g->load_wanted;
    unsigned change = load > wanted ? load - wanted : wanted - load;
    return change >= LOAD_STEP && !g->left ? g->load_us : UINT64_MAX;
}

static uint64_t local_deadline(const struct gossip *g)
{
    uint64_t deadline = g->round_us;
    if (g->left)
        return deadline;
    const uint64_t others[] = {
        gossip__join_deadline(g),   gossip__probe_deadline(g), gossip__suspect_deadline(g),
        gossip__revive_deadline(g), gossip__sync_deadline(g),  load_deadline(g),
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (others[i] < deadline)
            deadline = others[i];
    }
    return deadline;
}

/* Every call with a time begins here: host time to local time, less the spells in which nobody ran
 * us. The host's clock is monotonic; should it step back, time stands still. */
static void clock_in(struct gossip *g, uint64_t host_us)
{
    if (host_us > g->host_us)
        g->host_us = host_us;
    uint64_t now_us = g->host_us - g->paused_us;
    if (g->deadline_us < now_us && now_us - g->deadline_us > PAUSE_US) {
        g->paused_us += now_us - g->deadline_us;
        now_us = g->deadline_us;
        gossip__health_change(g, 1);
    }
    ASSERT(now_us >= g->now_us);
    g->now_us = now_us;
    g->reply_left = 0;
}

/* And ends here, with the promise by which the next one judges whether it comes late. */
static void clock_out(struct gossip *g)
{
    uint64_t deadline_us = local_deadline(g);
    g->deadline_us = deadline_us < g->now_us ? g->now_us : deadline_us;
}

uint64_t gossip_deadline_us(const struct gossip *g)
{
    bool never = g->deadline_us > UINT64_MAX - g->paused_us;
    return never ? UINT64_MAX : g->deadline_us + g->paused_us;
}

void gossip_advance(struct gossip *g, uint64_t now_us)
{
    clock_in(g, now_us);
    if (!g->left) {
        gossip__join_advance(g);
        gossip__probe_advance(g);
        gossip__suspect_advance(g);
        gossip__revive_advance(g);
        gossip__sync_advance(g);
        if (load_deadline(g) <= g->now_us)
            gossip__announce(g, gossip__self(g)->state);
    }
    gossip__spread_advance(g);
    clock_out(g);
}

/* ---- life cycle ---- */

/* 0 stands for the default; below a millisecond timers would come due as fast as they are set. */
static bool outside(uint64_t us, uint64_t most_us)
{
    return us != 0 && (us < 1000 || us > most_us);
}

static int check_config(const struct gossip_config *config)
{
    const uint64_t hour_us = 3600000000ULL;
    if (config->cluster_id == NULL || config->self.addr.port == 0)
        return E_INVALID;
    if (outside(config->period_us, hour_us) || outside(config->probe_timeout_us, hour_us) ||
        outside(config->push_pull_us, 24 * hour_us) || config->suspicion_multiplier > 100)
        return E_INVALID;
    return 0;
}

static void set_defaults(struct gossip_config *config)
{
    if (config->period_us == 0)
        config->period_us = 1000000;
    if (config->probe_timeout_us == 0)
        config->probe_timeout_us = 500000;
    if (config->indirect_probes == 0)
        config->indirect_probes = 3;
    if (config->indirect_probes > HELPERS_MAX)
        config->indirect_probes = HELPERS_MAX;
    if (config->push_pull_us == 0)
        config->push_pull_us = 30000000;
    if (config->suspicion_multiplier == 0)
        config->suspicion_multiplier = 5;
}

static int copy_cluster_id(struct gossip *g)
{
    size_t bytes = strlen(g->config.cluster_id) + 1;
    g->cluster_id = gossip__alloc(g, NULL, bytes, 1);
    if (g->cluster_id == NULL)
        return E_NO_MEMORY;
    memcpy(g->cluster_id, g->config.cluster_id, bytes);
    g->config.cluster_id = g->cluster_id;
    return 0;
}

static void init_timers(struct gossip *g, uint64_t now_us)
{
    uint64_t period_us = g->config.period_us;
    g->host_us = g->now_us = now_us;
    g->probe_us = now_us + gossip__between(g, 0, period_us);
    g->probe_successor = gossip__between(g, 0, 1) == 1;
    g->dead_probe_us = now_us + gossip__between(g, 0, 10 * period_us);
    g->revive_us = g->round_us = UINT64_MAX;
    g->sync.interval_us = period_us / 2;
    g->sync.next_us = now_us + gossip__between(g, 0, period_us / 2);
    g->sync.serve_tokens = SERVE_PAGES;
    g->sync.serve_refill_us = now_us;
    for (unsigned i = 0; i <= SENDS_MAX; i++)
        g->queue_head[i] = g->queue_tail[i] = NODE_NONE;
    g->suspicion_free = NODE_NONE;
}

int gossip_new(const struct env *env, const struct gossip_config *config, uint64_t now_us,
               struct gossip **out)
{
    int err = check_config(config);
    if (err != 0)
        return err;
    struct gossip *g = env->alloc(env->host, NULL, sizeof *g);
    if (g == NULL)
        return E_NO_MEMORY;
    memset(g, 0, sizeof *g);
    g->env = *env;
    g->config = *config;
    set_defaults(&g->config);
    uint8_t seed[32];
    env->random(env->host, seed, sizeof seed);
    prng_seed(&g->prng, seed, sizeof seed);
    g->last_seq = (uint32_t)prng_next(&g->prng);
    init_timers(g, now_us);
    g->config.self.state = MEMBER_ALIVE;
    g->config.self.incarnation = gossip__between(g, 1, INCARNATION_START);
    g->load_wanted = g->config.self.load;
    err = copy_cluster_id(g);
    if (err == 0)
        err = gossip__members_init(g);
    if (err != 0) {
        gossip_free(g);
        return err;
    }
    clock_out(g);
    *out = g;
    return 0;
}

void gossip_free(struct gossip *g)
{
    if (g == NULL)
        return;
    void *blocks[] = {g->suspicions, g->heap, g->cluster_id};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        if (blocks[i] != NULL)
            (void)g->env.alloc(g->env.host, blocks[i], 0);
    }
    gossip__members_close(g);
    struct env env = g->env;
    (void)env.alloc(env.host, g, 0);
}

/* ---- events from the host ---- */

void gossip_join(struct gossip *g, uint64_t now_us, const struct peer_addr *addrs,
                 size_t addr_count)
{
    clock_in(g, now_us);
    if (!g->left) {
        gossip__join_add(g, addrs, addr_count);
        gossip__join_advance(g);
    }
    clock_out(g);
}

int gossip_seed(struct gossip *g, uint64_t now_us, const struct member *members,
                size_t member_count)
{
    clock_in(g, now_us);
    int err = g->left ? 0 : gossip__insert_all(g, members, member_count);
    clock_out(g);
    return err;
}

void gossip__announce(struct gossip *g, enum member_state state)
{
    struct member member = *gossip__self(g);
    member.state = state;
    member.incarnation++;
    member.load = g->load_wanted;
    member.topology = g->config.self.topology;
    member.capacity_class = g->config.self.capacity_class;
    gossip__update(g, g->self, &member);
    gossip__enqueue(g, g->self);
    uint64_t periods = gossip_count(g) / 10;
    g->load_us =
        g->now_us + g->config.period_us * (periods < LOAD_PERIODS_MIN ? LOAD_PERIODS_MIN : periods);
}

void gossip_leave(struct gossip *g, uint64_t now_us, bool final)
{
    clock_in(g, now_us);
    enum member_state state = gossip__self(g)->state;
    if (!g->left && (final || state != MEMBER_LEAVING)) {
        gossip__announce(g, final ? MEMBER_LEFT : MEMBER_LEAVING);
        g->left = final;
        /* All sends of the last news at once: the host may be gone before the next round. */
        gossip__spread_now(g, final ? gossip__sends_limit(g) : FANOUT);
    }
    clock_out(g);
}

void gossip_update_self(struct gossip *g, uint64_t now_us, const struct topology *topology,
                        uint8_t capacity_class, uint8_t load)
{
    clock_in(g, now_us);
    const struct member *self = gossip__self(g);
    bool labels = memcmp(&self->topology, topology, sizeof *topology) != 0 ||
                  self->capacity_class != capacity_class;
    g->config.self.topology = *topology;
    g->config.self.capacity_class = capacity_class;
    g->load_wanted = load;
    if (!g->left && (labels || load_deadline(g) <= g->now_us))
        gossip__announce(g, self->state);
    clock_out(g);
}

void gossip_unreachable(struct gossip *g, uint64_t now_us, const struct node_id *id)
{
    clock_in(g, now_us);
    uint32_t index = gossip__by_id(g, id);
    if (index != NODE_NONE && !g->left)
        gossip__doubt(g, index);
    clock_out(g);
}

/* ---- messages ---- */

static void dispatch(struct gossip *g, const struct peer_addr *from)
{
    switch (g->in.type) {
    case WIRE_GOSSIP_PING:
        gossip__on_ping(g, from);
        break;
    case WIRE_GOSSIP_ACK:
        gossip__on_ack(g, from);
        break;
    case WIRE_GOSSIP_PING_REQ:
        gossip__on_ping_req(g, from);
        break;
    case WIRE_GOSSIP_RELAYED:
        gossip__on_relayed(g, from);
        break;
    case WIRE_GOSSIP_NEWS:
        (void)gossip__check_known(g, &g->in);
        (void)gossip__take_news(g, from, false);
        break;
    case WIRE_GOSSIP_SYNC_CHECK:
        gossip__on_check(g, from);
        break;
    case WIRE_GOSSIP_SYNC_STATE:
        gossip__on_state(g, from);
        break;
    case WIRE_GOSSIP_SYNC_DIGEST:
        gossip__on_digest(g, from);
        break;
    case WIRE_GOSSIP_SYNC_DIFF:
        gossip__on_diff(g, from);
        break;
    case WIRE_GOSSIP_SYNC_PAGE:
        gossip__on_page(g, from);
        break;
    case WIRE_GOSSIP_SYNC_RECORDS:
        gossip__on_records(g, from);
        break;
    default:
        break;
    }
}

int gossip_receive(struct gossip *g, uint64_t now_us, const struct peer_addr *from,
                   const uint8_t *msg, size_t msg_bytes)
{
    clock_in(g, now_us);
    g->stats.messages_received++;
    int err =
        msg_bytes > MESSAGE_BYTES_MAX ? E_TOO_LARGE : wire_gossip_decode(msg, msg_bytes, &g->in);
    if (err == 0 && peer_addr_equal(from, &gossip__self(g)->addr))
        err = E_MALFORMED; /* nobody else has our address */
    if (err == 0) {
        g->reply_left = 3 * ((uint64_t)msg_bytes + DATAGRAM_OVERHEAD_MAX);
        g->corrections.count = 0;
        dispatch(g, from);
        gossip__send_corrections(g, from);
    } else {
        g->stats.rejected++;
        err = err == E_NOT_FOUND ? E_NOT_FOUND : E_MALFORMED;
    }
    clock_out(g);
    return err;
}

/* ---- view ---- */

size_t gossip_count(const struct gossip *g)
{
    return (size_t)g->state_count[MEMBER_ALIVE] + g->state_count[MEMBER_SUSPECT] +
           g->state_count[MEMBER_LEAVING];
}

bool gossip_at(const struct gossip *g, size_t index, struct member *out)
{
    if (index >= g->node_count)
        return false;
    gossip__member(g, g->order[index], out);
    return true;
}

bool gossip_find(const struct gossip *g, const struct node_id *id, struct member *out)
{
    uint32_t index = gossip__by_id(g, id);
    if (index == NODE_NONE)
        return false;
    gossip__member(g, index, out);
    return true;
}

enum member_state gossip_state(const struct gossip *g, const struct node_id *id)
{
    uint32_t index = gossip__by_id(g, id);
    return index == NODE_NONE ? MEMBER_UNKNOWN : (enum member_state)gossip__node(g, index)->state;
}

const struct member *gossip_self(const struct gossip *g)
{
    return gossip__self(g);
}

void gossip_stats(const struct gossip *g, struct gossip_stats *out)
{
    *out = g->stats;
    out->alive = g->state_count[MEMBER_ALIVE];
    out->suspect = g->state_count[MEMBER_SUSPECT];
    out->leaving = g->state_count[MEMBER_LEAVING];
    out->health = g->health;
}
