/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wiring of one node, written once for daemon and simulator: members from gossip feed the DHT's
 * one-hop table and transfer's placement; transfer's LOCATE and PUBLISH become DHT calls; what
 * transfer learns of silent peers reaches gossip. Owns no protocol rule of its own.
 */
#include "mesh.h"

#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "wire.h"

/* Lookups of the host (explain, status) at one time; transfer's own are not counted here. */
#define HOST_LOOKUPS_MAX 64
/* Orders received and not yet taken by the host. They are repeated by who gave them. */
#define ORDERS_MAX 16

struct mesh {
    const struct env *env;
    struct directory *directory; /* of the three */
    struct gossip *gossip;
    struct dht *dht;
    struct transfer *transfer;
    /* Nearly all calls are transfer's own. For those gossip and DHT are not looked at: they were
     * drained, and have nothing to do before `others_due_us`, unless somebody got hold of them. */
    bool others_called;
    uint64_t others_due_us;
    size_t order_count;
    struct mesh_order *orders; /* ORDERS_MAX and the one last taken; NULL until the first comes */
    struct node_id self;
    uint64_t host_lookups[HOST_LOOKUPS_MAX]; /* ids whose result goes to the host */
    size_t host_lookup_count;
    struct dht_result *answer; /* the last lookup's; too large for the caller's stack */
};

static int new_directory(struct mesh *mesh, const struct mesh_config *config)
{
    if (config->directory != NULL) {
        mesh->directory = directory_get(config->directory);
        return 0;
    }
    uint64_t seed;
    mesh->env->random(mesh->env->host, (uint8_t *)&seed, sizeof seed);
    return directory_new(mesh->env, config->cluster_id, seed, &mesh->directory);
}

static int new_gossip(struct mesh *mesh, const struct mesh_config *config, uint64_t now_us)
{
    struct gossip_config part = config->gossip;
    part.cluster_id = config->cluster_id;
    part.directory = mesh->directory;
    part.self = (struct member){
        .id = mesh->self,
        .key = config->self_key,
        .addr = config->self_addr,
        .topology = config->topology,
        .capacity_class = config->capacity_class,
        .version_minor = WIRE_VERSION_MINOR,
    };
    return gossip_new(mesh->env, &part, now_us, &mesh->gossip);
}

static int new_dht(struct mesh *mesh, const struct mesh_config *config, uint64_t now_us)
{
    struct dht_config part = config->dht;
    part.cluster_id = config->cluster_id;
    part.directory = mesh->directory;
    part.self = (struct dht_contact){.id = mesh->self, .addr = config->self_addr};
    part.topology = config->topology;
    return dht_new(mesh->env, &part, now_us, &mesh->dht);
}

static int new_transfer(struct mesh *mesh, const struct mesh_config *config, uint64_t now_us)
{
    struct transfer_config part = config->transfer;
    part.directory = mesh->directory;
    part.self_id = mesh->self;
    part.self_addr = config->self_addr;
    part.topology = config->topology;
    return transfer_new(mesh->env, &part, now_us, &mesh->transfer);
}

int mesh_new(const struct env *env, const struct mesh_config *config, uint64_t now_us,
             struct mesh **out)
{
    struct mesh *mesh = env->alloc(env->host, NULL, sizeof *mesh);
    if (mesh == NULL)
        return E_NO_MEMORY;
    *mesh = (struct mesh){.env = env, .others_called = true};
    node_id_of(config->cluster_id, &config->self_addr, &mesh->self);
    mesh->answer = env->alloc(env->host, NULL, sizeof *mesh->answer);
    int err = mesh->answer == NULL ? E_NO_MEMORY : 0;
    if (err == 0)
        err = new_directory(mesh, config);
    if (err == 0)
        err = new_gossip(mesh, config, now_us);
    if (err == 0)
        err = new_dht(mesh, config, now_us);
    if (err == 0)
        err = new_transfer(mesh, config, now_us);
    if (err != 0) {
        mesh_free(mesh);
        return err;
    }
    *out = mesh;
    return 0;
}

void mesh_free(struct mesh *mesh)
{
    if (mesh == NULL)
        return;
    if (mesh->transfer != NULL)
        transfer_free(mesh->transfer);
    if (mesh->dht != NULL)
        dht_free(mesh->dht);
    if (mesh->gossip != NULL)
        gossip_free(mesh->gossip);
    directory_put(mesh->directory);
    if (mesh->answer != NULL)
        (void)mesh->env->alloc(mesh->env->host, mesh->answer, 0);
    if (mesh->orders != NULL)
        (void)mesh->env->alloc(mesh->env->host, mesh->orders, 0);
    (void)mesh->env->alloc(mesh->env->host, mesh, 0);
}

struct gossip *mesh_gossip(struct mesh *mesh)
{
    mesh->others_called = true;
    return mesh->gossip;
}

struct dht *mesh_dht(struct mesh *mesh)
{
    mesh->others_called = true;
    return mesh->dht;
}

struct transfer *mesh_transfer(struct mesh *mesh)
{
    return mesh->transfer;
}

const struct node_id *mesh_self(const struct mesh *mesh)
{
    return &mesh->self;
}

/* How many from the first on does gossip hold for live, ourselves apart? */
static size_t run_of_live(const struct mesh *mesh, const struct member *members, size_t count)
{
    size_t run = 0;
    for (; run < count; run++) {
        enum member_state state = gossip_state(mesh->gossip, &members[run].id);
        bool live = state == MEMBER_ALIVE || state == MEMBER_SUSPECT || state == MEMBER_LEAVING;
        if (!live || node_id_equal(&members[run].id, &mesh->self))
            break;
    }
    return run;
}

int mesh_seed_members(struct mesh *mesh, uint64_t now_us, const struct member *members,
                      size_t member_count)
{
    mesh->others_called = true;
    int first = gossip_seed(mesh->gossip, now_us, members, member_count);
    for (size_t at = 0; at < member_count; at++) {
        size_t run = run_of_live(mesh, members + at, member_count - at);
        int err = run == 0 ? 0 : transfer_members_up(mesh->transfer, now_us, members + at, run);
        for (; run > 0; run--, at++) {
            const struct dht_contact contact = {.id = members[at].id, .addr = members[at].addr};
            int dht_err = dht_member_up(mesh->dht, now_us, &contact);
            err = err == 0 ? dht_err : err;
        }
        first = first == 0 ? err : first;
    }
    return first;
}

int mesh_update_self(struct mesh *mesh, uint64_t now_us, const struct topology *topology)
{
    const struct member *self = gossip_self(mesh->gossip);
    int err =
        transfer_update_self(mesh->transfer, now_us, topology); /* the only one that can fail */
    if (err != 0)
        return err;
    mesh->others_called = true;
    dht_update_self(mesh->dht, now_us, topology);
    gossip_update_self(mesh->gossip, now_us, topology, self->capacity_class, self->load);
    return 0;
}

static int host_lookup(struct mesh *mesh, uint64_t now_us, const struct blob_key *key,
                       bool iterative, uint64_t *lookup_id)
{
    if (mesh->host_lookup_count == HOST_LOOKUPS_MAX)
        return E_FULL;
    uint64_t id;
    mesh->others_called = true;
    int err = iterative ? dht_lookup_iterative(mesh->dht, now_us, key, &id)
                        : dht_lookup(mesh->dht, now_us, key, &id);
    if (err != 0)
        return err;
    mesh->host_lookups[mesh->host_lookup_count++] = id;
    *lookup_id = id;
    return 0;
}

int mesh_lookup(struct mesh *mesh, uint64_t now_us, const struct blob_key *key, uint64_t *lookup_id)
{
    return host_lookup(mesh, now_us, key, false, lookup_id);
}

int mesh_lookup_iterative(struct mesh *mesh, uint64_t now_us, const struct blob_key *key,
                          uint64_t *lookup_id)
{
    return host_lookup(mesh, now_us, key, true, lookup_id);
}

int mesh_order_send(struct mesh *mesh, const struct peer_addr *to, const struct wire_order *order)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used;
    int err = wire_order_encode(order, msg, sizeof msg, &used);
    return err != 0 ? err : mesh->env->send(mesh->env->host, to, msg, used);
}

static int receive_order(struct mesh *mesh, const struct node_id *from_id,
                         const struct peer_addr *from, const uint8_t *msg, size_t msg_bytes)
{
    enum member_state state = gossip_state(mesh->gossip, from_id);
    if (state != MEMBER_ALIVE && state != MEMBER_SUSPECT)
        return E_DENIED;
    if (mesh->order_count == ORDERS_MAX)
        return E_FULL;
    if (mesh->orders == NULL)
        mesh->orders =
            mesh->env->alloc(mesh->env->host, NULL, (ORDERS_MAX + 1) * sizeof mesh->orders[0]);
    if (mesh->orders == NULL)
        return E_NO_MEMORY;
    struct mesh_order *order = &mesh->orders[mesh->order_count];
    order->from = *from_id;
    order->addr = *from;
    int err = wire_order_decode(msg, msg_bytes, &order->order);
    mesh->order_count += err == 0;
    return err;
}

/* The oldest moves to the place behind the others. */
static bool next_order(struct mesh *mesh, struct mesh_event *out)
{
    if (mesh->order_count == 0)
        return false;
    mesh->orders[ORDERS_MAX] = mesh->orders[0];
    mesh->order_count--;
    memmove(&mesh->orders[0], &mesh->orders[1], mesh->order_count * sizeof mesh->orders[0]);
    out->kind = MESH_ORDER;
    out->of.order = &mesh->orders[ORDERS_MAX];
    return true;
}

/* Probes go on all the time: before its first pull a node knows how far away others are. */
static void pass_rtt(struct mesh *mesh)
{
    struct gossip_rtt rtt;
    if (gossip_next_rtt(mesh->gossip, &rtt))
        transfer_rtt(mesh->transfer, &rtt.id, rtt.took_us, rtt.sure);
}

int mesh_receive(struct mesh *mesh, uint64_t now_us, const struct node_id *from_id,
                 const struct peer_addr *from, const uint8_t *msg, size_t msg_bytes)
{
    unsigned type;
    int err = wire_type(msg, msg_bytes, &type);
    if (err != 0)
        return err;
    if (type >= WIRE_TRANSFER_FIRST && type <= WIRE_TRANSFER_LAST)
        return transfer_receive(mesh->transfer, now_us, from_id, from, msg, msg_bytes);
    if (type >= WIRE_ORDER_FIRST && type <= WIRE_ORDER_LAST)
        return receive_order(mesh, from_id, from, msg, msg_bytes);
    mesh->others_called = true;
    if (type >= WIRE_GOSSIP_FIRST && type <= WIRE_GOSSIP_LAST) {
        err = gossip_receive(mesh->gossip, now_us, from, msg, msg_bytes);
        pass_rtt(mesh);
        return err;
    }
    if (type >= WIRE_DHT_FIRST && type <= WIRE_DHT_LAST)
        return dht_receive(mesh->dht, now_us, from, msg, msg_bytes);
    return E_NOT_FOUND;
}

static uint64_t others_deadline_us(const struct mesh *mesh)
{
    uint64_t gossip_us = gossip_deadline_us(mesh->gossip);
    uint64_t dht_us = dht_deadline_us(mesh->dht);
    return gossip_us < dht_us ? gossip_us : dht_us;
}

void mesh_advance(struct mesh *mesh, uint64_t now_us)
{
    if (mesh->others_called || mesh->others_due_us <= now_us) {
        mesh->others_called = true;
        gossip_advance(mesh->gossip, now_us);
        dht_advance(mesh->dht, now_us);
    }
    transfer_advance(mesh->transfer, now_us);
}

uint64_t mesh_deadline_us(const struct mesh *mesh)
{
    uint64_t others_us = mesh->others_called ? others_deadline_us(mesh) : mesh->others_due_us;
    uint64_t transfer_us = transfer_deadline_us(mesh->transfer);
    return others_us < transfer_us ? others_us : transfer_us;
}

/* A member that a part has no room for costs placement quality, not correctness: others still know
 * it. Each part is told whatever the other said. */
static void apply_member(struct mesh *mesh, uint64_t now_us, const struct gossip_event *event)
{
    const struct member *member = &event->member;
    struct dht_contact contact = {.id = member->id, .addr = member->addr};
    if (event->kind == GOSSIP_MEMBER_DOWN) {
        dht_member_down(mesh->dht, now_us, &member->id);
        transfer_member_down(mesh->transfer, now_us, &member->id);
        return;
    }
    int dht_err = 0;
    if (event->kind == GOSSIP_MEMBER_UP)
        dht_err = dht_member_up(mesh->dht, now_us, &contact);
    int transfer_err = transfer_member_up(mesh->transfer, now_us, member);
    if (dht_err != 0 || transfer_err != 0)
        log_to(mesh->env, LOG_WARN, "mesh: member not taken over: %s",
               err_text(dht_err != 0 ? dht_err : transfer_err));
}

static bool take_host_lookup(struct mesh *mesh, uint64_t lookup_id)
{
    for (size_t i = 0; i < mesh->host_lookup_count; i++) {
        if (mesh->host_lookups[i] != lookup_id)
            continue;
        mesh->host_lookups[i] = mesh->host_lookups[--mesh->host_lookup_count];
        return true;
    }
    return false;
}

/* Hands the answer of a LOCATE to transfer; an empty answer too, so that it need not wait. */
static void apply_providers(struct mesh *mesh, uint64_t now_us, const struct dht_result *result)
{
    struct transfer_provider providers[DHT_RESULT_PROVIDERS_MAX];
    for (size_t i = 0; i < result->provider_count; i++) {
        const struct dht_provider *found = &result->providers[i];
        providers[i] = (struct transfer_provider){
            .id = found->contact.id,
            .addr = found->contact.addr,
            .topology = found->topology,
            .completeness = found->completeness,
        };
    }
    transfer_providers(mesh->transfer, now_us, &result->key, providers, result->provider_count);
}

static void locate(struct mesh *mesh, uint64_t now_us, const struct blob_key *key)
{
    uint64_t lookup_id;
    int err = dht_lookup(mesh->dht, now_us, key, &lookup_id);
    if (err != 0) /* transfer asks again on its own schedule */
        transfer_providers(mesh->transfer, now_us, key, NULL, 0);
}

static void publish(struct mesh *mesh, uint64_t now_us, const struct transfer_result *result)
{
    if (result->completeness == 0) {
        dht_unpublish(mesh->dht, now_us, &result->key);
        return;
    }
    int err = dht_publish(mesh->dht, now_us, &result->key, result->completeness);
    if (err != 0)
        log_to(mesh->env, LOG_WARN, "mesh: provider record not kept: %s", err_text(err));
}

/* True if the result was for another part and is done with. */
static bool apply_transfer(struct mesh *mesh, uint64_t now_us, const struct transfer_result *result)
{
    switch (result->kind) {
    case TRANSFER_LOCATE:
        mesh->others_called = true;
        locate(mesh, now_us, &result->key);
        return true;
    case TRANSFER_PUBLISH:
        mesh->others_called = true;
        publish(mesh, now_us, result);
        return true;
    case TRANSFER_PEER_SILENT:
        mesh->others_called = true;
        gossip_unreachable(mesh->gossip, now_us, &result->peer);
        return true;
    default:
        return false;
    }
}

/* Takes the DHT's answers; true if one is for the host and stands in `out`. */
static bool next_lookup(struct mesh *mesh, uint64_t now_us, struct mesh_event *out, bool *moved)
{
    while (dht_next_result(mesh->dht, mesh->answer)) {
        if (take_host_lookup(mesh, mesh->answer->lookup_id)) {
            out->kind = MESH_LOOKUP;
            out->of.lookup = mesh->answer;
            return true;
        }
        apply_providers(mesh, now_us, mesh->answer);
        *moved = true;
    }
    return false;
}

/* Takes transfer's results; true if one is for the host and stands in `out`. */
static bool next_transfer(struct mesh *mesh, uint64_t now_us, struct mesh_event *out, bool *moved)
{
    while (transfer_next_result(mesh->transfer, &out->of.transfer)) {
        if (!apply_transfer(mesh, now_us, &out->of.transfer)) {
            out->kind = MESH_TRANSFER;
            return true;
        }
        *moved = true;
    }
    return false;
}

/* All results are taken, and none of them made news in another part. */
static void rest_others(struct mesh *mesh)
{
    mesh->others_due_us = others_deadline_us(mesh);
    mesh->others_called = false;
}

bool mesh_next_result(struct mesh *mesh, uint64_t now_us, struct mesh_event *out)
{
    if (mesh->others_called && gossip_next_result(mesh->gossip, &out->of.member)) {
        out->kind = MESH_MEMBER;
        apply_member(mesh, now_us, &out->of.member);
        return true;
    }
    if (next_order(mesh, out))
        return true;
    /* News moved from one part to another may make news there at once (a lookup answered locally).
     */
    bool moved, moved_any = false;
    do {
        moved = false;
        if ((mesh->others_called && next_lookup(mesh, now_us, out, &moved)) ||
            next_transfer(mesh, now_us, out, &moved))
            return true;
        moved_any = moved_any || moved;
    } while (moved);
    if (mesh->others_called && !moved_any)
        rest_others(mesh);
    return false;
}

void mesh_leave(struct mesh *mesh, uint64_t now_us, bool final)
{
    if (!final)
        transfer_drain(mesh->transfer, now_us);
    mesh->others_called = true;
    gossip_leave(mesh->gossip, now_us, final);
}

void mesh_look_ahead(const struct mesh *mesh, unsigned step, const struct node_id *from)
{
    if (step > 0) {
        transfer_look_ahead(mesh->transfer, step, from);
        return;
    }
    __builtin_prefetch(mesh);
    __builtin_prefetch(&mesh->others_due_us);
}

void mesh__check_invariants(const struct mesh *mesh)
{
    ASSERT(mesh->host_lookup_count <= HOST_LOOKUPS_MAX);
    ASSERT(mesh->order_count <= ORDERS_MAX);
    gossip__check_invariants(mesh->gossip);
    dht__check_invariants(mesh->dht);
    transfer__check_invariants(mesh->transfer);
}
