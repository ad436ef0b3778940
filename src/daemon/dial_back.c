/* SPDX-License-Identifier: Apache-2.0 */
/* Asking others to connect, and connecting for others; see dial_back.h. */
#include "dial_back.h"

#include "bytes.h"
#include "log.h"
#include "net.h"

#define DIALS_MAX  4
#define RECENT_MAX 16
#define DIAL_US    1500000ULL
#define RECENT_US  4000000ULL
#define REPEAT_US  400000ULL
#define TICK_MS    100
#define SELF_MAGIC 0xd1a1bac4U

/* For whom we have connected; state 0: under way. */
struct recent {
    struct node_id id;
    struct peer_addr addr;
    uint64_t serial, at_us; /* 0: free */
    uint8_t state;          /* enum wire_order_state */
};

struct dialling {
    uv_tcp_t tcp;
    uv_connect_t request;
    struct dial_back *owner;
    struct recent *of;
    uint64_t end_us;
    bool used; /* until uv's close callback */
    bool told;
};

struct asked {
    struct node_id id;
    struct peer_addr addr;
    uint8_t state; /* 0: no answer yet */
};

struct dial_back {
    uint32_t magic;
    struct loop *loop;
    struct node *node;
    struct loop_part part;
    uv_timer_t timer; /* runs while a dial does */
    struct dialling dials[DIALS_MAX];
    struct recent recent[RECENT_MAX];
    bool closed;
    struct dial_back_counters counters;

    struct asked asked[DIAL_BACK_ASKED_MAX];
    uint32_t asked_count;
    uint64_t serial, began_us, sent_us; /* of our round; 0: none yet */
};

static uint64_t now_us(const struct dial_back *dial)
{
    return loop_now_us(dial->loop);
}

/* ---- for others ---- */

static void tell(struct dial_back *dial, const struct recent *recent)
{
    struct wire_order told = {.type = WIRE_ORDER_DIALLED, .serial = recent->serial, .count = 1};
    told.blobs[0].state = recent->state;
    int err = mesh_order_send(node_mesh(dial->node), &recent->addr, &told);
    (void)err; /* it is asked for again */
}

static void on_closed(uv_handle_t *handle)
{
    struct dialling *one = handle->data;
    one->used = false;
}

static void finish(struct dialling *one, bool reached)
{
    if (one->told)
        return;
    one->told = true;
    one->owner->counters.reached += reached;
    one->owner->counters.failed += !reached;
    one->of->state = reached ? WIRE_ORDER_DONE : WIRE_ORDER_FAILED;
    if (!one->owner->closed)
        tell(one->owner, one->of);
    uv_close((uv_handle_t *)&one->tcp, on_closed);
}

static void on_connect(uv_connect_t *request, int status)
{
    struct dialling *one = request->data;
    ASSERT(one->owner->magic == SELF_MAGIC);
    finish(one, status == 0);
}

static void on_tick(uv_timer_t *timer)
{
    struct dial_back *dial = timer->data;
    bool any = false;
    for (unsigned i = 0; i < DIALS_MAX; i++) {
        struct dialling *one = &dial->dials[i];
        if (one->used && !one->told && now_us(dial) >= one->end_us)
            finish(one, false);
        any = any || one->used;
    }
    if (!any)
        (void)uv_timer_stop(timer);
}

static struct dialling *dial_free(struct dial_back *dial)
{
    for (unsigned i = 0; i < DIALS_MAX; i++)
        if (!dial->dials[i].used)
            return &dial->dials[i];
    return NULL;
}

/* The place of this member's last, or one that is free by now; NULL: all are in use. */
static struct recent *recent_of(struct dial_back *dial, const struct node_id *id)
{
    struct recent *place = NULL;
    for (unsigned i = 0; i < RECENT_MAX; i++) {
        struct recent *at = &dial->recent[i];
        bool over = at->at_us == 0 || (at->state != 0 && now_us(dial) - at->at_us >= RECENT_US);
        if (over && place == NULL)
            place = at;
        if (!over && node_id_equal(&at->id, id))
            return at;
    }
    if (place != NULL)
        *place = (struct recent){.at_us = 0};
    return place;
}

static void dial_start(struct dial_back *dial, struct dialling *one, struct recent *recent)
{
    struct sockaddr_storage raw;
    if (net_to_sockaddr(&recent->addr, !peer_addr_is_v4(&recent->addr), &raw) != 0 ||
        uv_tcp_init(&dial->loop->uv, &one->tcp) != 0) {
        recent->state = WIRE_ORDER_BUSY;
        return;
    }
    one->used = true;
    one->told = false;
    one->owner = dial;
    one->of = recent;
    one->end_us = now_us(dial) + DIAL_US;
    one->tcp.data = one->request.data = one;
    if (uv_tcp_connect(&one->request, &one->tcp, (const struct sockaddr *)&raw, on_connect) != 0)
        finish(one, false);
    else if (!uv_is_active((uv_handle_t *)&dial->timer))
        (void)uv_timer_start(&dial->timer, on_tick, TICK_MS, TICK_MS);
}

static void dial_for(struct dial_back *dial, const struct mesh_order *order)
{
    struct recent *recent = recent_of(dial, &order->from);
    if (recent != NULL && recent->at_us != 0 && recent->serial == order->order.serial) {
        if (recent->state != 0) /* the answer was lost */
            tell(dial, recent);
        return;
    }
    struct dialling *one = dial_free(dial);
    if (recent == NULL || recent->at_us != 0 || one == NULL) {
        dial->counters.refused++;
        return;
    }
    *recent = (struct recent){.id = order->from,
                              .addr = order->addr,
                              .serial = order->order.serial,
                              .at_us = now_us(dial)};
    dial_start(dial, one, recent);
}

/* ---- for ourselves ---- */

static void answered(struct dial_back *dial, const struct mesh_order *order)
{
    uint8_t state = order->order.blobs[0].state;
    if (order->order.serial != dial->serial ||
        (state != WIRE_ORDER_DONE && state != WIRE_ORDER_FAILED))
        return;
    for (uint32_t i = 0; i < dial->asked_count; i++)
        if (node_id_equal(&dial->asked[i].id, &order->from))
            dial->asked[i].state = state;
}

void dial_back_told(struct dial_back *dial, const struct mesh_order *order)
{
    if (dial->closed)
        return;
    if (order->order.type == WIRE_ORDER_DIAL)
        dial_for(dial, order);
    else
        answered(dial, order);
}

/* Live members, from another one on each time. */
static void round_begin(struct dial_back *dial)
{
    const struct gossip *gossip = node_gossip(dial->node);
    size_t count = gossip_count(gossip);
    struct member member;
    dial->began_us = now_us(dial);
    dial->serial = dial->began_us; /* of ours alone: who answers is compared as well */
    dial->sent_us = 0;
    dial->asked_count = 0;
    for (size_t i = 0; i < count && dial->asked_count < DIAL_BACK_ASKED_MAX; i++) {
        size_t at = (size_t)((dial->serial + i) % count);
        if (!gossip_at(gossip, at, &member) || member.state != MEMBER_ALIVE ||
            node_id_equal(&member.id, node_self_id(dial->node)))
            continue;
        dial->asked[dial->asked_count++] = (struct asked){.id = member.id, .addr = member.addr};
    }
}

void dial_back_ask(struct dial_back *dial, struct dial_back_result *out)
{
    uint64_t at_us = now_us(dial);
    if (dial->began_us == 0 || at_us - dial->began_us >= DIAL_BACK_ROUND_US)
        round_begin(dial);
    bool due = dial->sent_us == 0 || at_us - dial->sent_us >= REPEAT_US;
    const struct wire_order ask = {.type = WIRE_ORDER_DIAL, .serial = dial->serial};
    *out = (struct dial_back_result){.asked = dial->asked_count};
    for (uint32_t i = 0; i < dial->asked_count; i++) {
        const struct asked *asked = &dial->asked[i];
        out->reached += asked->state == WIRE_ORDER_DONE;
        out->failed += asked->state == WIRE_ORDER_FAILED;
        int err = due && asked->state == 0
                      ? mesh_order_send(node_mesh(dial->node), &asked->addr, &ask)
                      : 0;
        (void)err; /* repeated */
    }
    if (due)
        dial->sent_us = at_us;
}

void dial_back_counters(const struct dial_back *dial, struct dial_back_counters *out)
{
    *out = dial->counters;
}

/* ---- life ---- */

static void part_close(void *arg)
{
    struct dial_back *dial = arg;
    dial->closed = true;
    for (unsigned i = 0; i < DIALS_MAX; i++)
        if (dial->dials[i].used)
            finish(&dial->dials[i], false);
    uv_close((uv_handle_t *)&dial->timer, NULL);
}

int dial_back_new(struct loop *loop, struct node *node, struct dial_back **out)
{
    struct dial_back *dial = loop_alloc(NULL, NULL, sizeof *dial);
    if (dial == NULL)
        return E_NO_MEMORY;
    *dial = (struct dial_back){.magic = SELF_MAGIC, .loop = loop, .node = node};
    int uv_error = uv_timer_init(&loop->uv, &dial->timer);
    if (uv_error != 0) {
        (void)loop_alloc(NULL, dial, 0);
        return loop_uv_error(uv_error);
    }
    dial->timer.data = dial;
    dial->part = (struct loop_part){.name = "dial back", .arg = dial, .close = part_close};
    loop_add_part(loop, &dial->part);
    *out = dial;
    return 0;
}

void dial_back_free(struct dial_back *dial)
{
    (void)loop_alloc(NULL, dial, 0);
}
