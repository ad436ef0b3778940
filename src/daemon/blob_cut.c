/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which cut of a blob a small range is read in (piece_map.h). Fine pieces cost the registry little
 * more than the bytes asked for; but what is here or in the mesh in plain pieces is to come from
 * there, not from the registry once more. So before the first such read the mesh is asked who has
 * the blob, and the answer is remembered; it is asked again now and then, while reads go by the old
 * answer. That nobody had it long ago says nothing: the first read after a pause waits again.
 */
#include <string.h>

#include "blob_internal.h"
#include "log.h"

/* Longer reads are plain: of those the plain pieces at both ends are a small part, and clients that
 * read a whole layer in parallel ranges (containerd: 8 MiB and more) must share it with those that
 * pull it in one. overlaybd, nydus and stargz ask for 1 MiB at most. */
#define FINE_READ_BYTES_MAX (1024u * 1024)
/* A read waits no longer for the mesh's answer; within a region one comes in some milliseconds. */
#define CUT_WAIT_US (100u * 1000)
/* How often waiters look for what is not told: the content store's answer, the end of patience. */
#define CUT_TICK_MS 10
/* A node that pulls the layer announces it within a second and completes it within a minute. */
#define CUT_ASK_US (10ull * 1000000)
/* Of 255: who has half of a blob in plain pieces. Of less most reads would miss, and each of those
 * brings in plain pieces of twice its size. */
#define HALF_COMPLETE 128u

static bool range_here(const struct blob *blob, const struct cut_range *range)
{
    uint32_t end = piece_at(&blob->layout, range->end - 1) + 1;
    for (uint32_t i = piece_at(&blob->layout, range->first); i < end; i++) {
        if (!blob->pieces[i].have)
            return false;
    }
    return true;
}

/* Much of it is here in plain pieces, or will be: a client pulls all of it. */
static bool held_here(const struct blob *plain)
{
    if (plain->verified || plain->content != NULL ||
        plain->have_count >= plain->layout.piece_count - plain->have_count)
        return true;
    for (const struct blob_reader *reader = plain->readers; reader != NULL; reader = reader->next) {
        if (!reader->range)
            return true;
    }
    return false;
}

/* What can be told without the mesh; PIECE_CUT_COUNT: nothing. */
static enum piece_cut cut_here(struct blobs *blobs, const struct cut_range *range)
{
    if (range->end - range->first > FINE_READ_BYTES_MAX ||
        !piece_layout_is_coarse(range->size_bytes))
        return PIECE_CUT_PLAIN;
    const struct blob *plain = blobs__find(blobs, &range->digest, PIECE_CUT_PLAIN);
    const struct blob *fine = blobs__find(blobs, &range->digest, PIECE_CUT_FINE);
    if (plain != NULL && (plain->info.size_bytes != range->size_bytes || held_here(plain) ||
                          range_here(plain, range)))
        return PIECE_CUT_PLAIN;
    if (fine != NULL && fine->info.size_bytes == range->size_bytes && range_here(fine, range))
        return PIECE_CUT_FINE;
    return PIECE_CUT_COUNT;
}

/* ---- what the mesh said ---- */

static struct cut_note *find_note(struct blob_cuts *cuts, const struct digest *digest)
{
    for (unsigned i = 0; i < CUT_NOTES_MAX; i++) {
        if (cuts->notes[i].used_us != 0 && digest_equal(&cuts->notes[i].digest, digest))
            return &cuts->notes[i];
    }
    return NULL;
}

/* Takes the place of the one that nobody has looked at for longest. */
static struct cut_note *add_note(struct blob_cuts *cuts, const struct digest *digest)
{
    struct cut_note *oldest = &cuts->notes[0];
    for (unsigned i = 1; i < CUT_NOTES_MAX; i++) {
        if (cuts->notes[i].used_us < oldest->used_us)
            oldest = &cuts->notes[i];
    }
    *oldest = (struct cut_note){.digest = *digest};
    return oldest;
}

/* Asks the mesh, unless that was done lately. If it cannot be asked nobody has it. */
static void ask(struct blobs *blobs, struct cut_note *note, uint64_t now_us)
{
    struct node *node = blobs->config.node;
    struct blob_key key;
    bool due = note->asked_us == 0 || now_us - note->asked_us >= CUT_ASK_US;
    if (note->lookup_id != 0 && now_us - note->asked_us >= CUT_WAIT_US)
        note->answered = true; /* by its silence, until it speaks */
    if (!due)
        return;
    note->asked_us = now_us;
    blob_key_of(node_lookup_key(node), &note->digest, &key);
    if (gossip_count(node_gossip(node)) > 1 &&
        mesh_lookup(node_mesh(node), now_us, &key, &note->lookup_id) == 0)
        return;
    note->lookup_id = 0;
    note->answered = true;
    note->held = false;
}

void blob_cut__found(struct blobs *blobs, const struct dht_result *result)
{
    for (unsigned i = 0; i < CUT_NOTES_MAX; i++) {
        struct cut_note *note = &blobs->cuts.notes[i];
        if (note->used_us == 0 || note->lookup_id != result->lookup_id)
            continue;
        note->lookup_id = 0;
        note->answered = true;
        note->held = false;
        for (size_t j = 0; j < result->provider_count; j++)
            note->held = note->held || result->providers[j].completeness >= HALF_COMPLETE;
    }
    blob_cut__wake(blobs);
}

/* PIECE_CUT_COUNT: not known yet. */
static enum piece_cut cut_of(struct blobs *blobs, const struct cut_range *range)
{
    uint64_t now_us = loop_now_us(blobs->config.loop);
    enum piece_cut cut = cut_here(blobs, range);
    if (cut != PIECE_CUT_COUNT)
        return cut;
    struct cut_note *note = find_note(&blobs->cuts, &range->digest);
    if (note == NULL)
        note = add_note(&blobs->cuts, &range->digest);
    if (!note->held && now_us - note->used_us >= CUT_ASK_US)
        note->answered = false;
    note->used_us = now_us == 0 ? 1 : now_us;
    ask(blobs, note, now_us);
    if (!note->answered || blobs_content_expected(blobs, &range->digest))
        return PIECE_CUT_COUNT;
    return note->held ? PIECE_CUT_PLAIN : PIECE_CUT_FINE;
}

/* ---- who waits ---- */

void blobs_cut_unwait(struct blobs *blobs, struct cut_waiter *waiter)
{
    struct cut_waiter **at = &blobs->cuts.waiters;
    while (*at != NULL && *at != waiter)
        at = &(*at)->next;
    if (*at != NULL)
        *at = waiter->next;
}

/* Tells one waiter that may know by now; false if there is none. It may free itself. */
static bool tell_one(struct blobs *blobs)
{
    uint64_t now_us = loop_now_us(blobs->config.loop);
    for (struct cut_waiter *waiter = blobs->cuts.waiters; waiter != NULL; waiter = waiter->next) {
        enum piece_cut cut = cut_of(blobs, &waiter->range);
        bool late = now_us >= waiter->until_us;
        if (cut == PIECE_CUT_COUNT && !late)
            continue;
        if (cut == PIECE_CUT_COUNT) /* containerd's copy is being hashed: that is worth waiting */
            cut = PIECE_CUT_PLAIN;
        blobs_cut_unwait(blobs, waiter);
        waiter->known(waiter->arg, cut);
        return true;
    }
    return false;
}

void blob_cut__wake(struct blobs *blobs)
{
    while (tell_one(blobs)) {
    }
    if (blobs->cuts.waiters == NULL && !blobs->cuts.closed)
        (void)uv_timer_stop(&blobs->cuts.timer);
}

static void on_timer(uv_timer_t *timer)
{
    blob_cut__wake(timer->data);
}

bool blobs_cut_of(struct blobs *blobs, struct cut_waiter *waiter, enum piece_cut *out)
{
    struct blob_cuts *cuts = &blobs->cuts;
    *out = cut_of(blobs, &waiter->range);
    if (*out != PIECE_CUT_COUNT)
        return true;
    waiter->until_us = loop_now_us(blobs->config.loop) + CUT_WAIT_US;
    if (cuts->closed || uv_timer_start(&cuts->timer, on_timer, CUT_TICK_MS, CUT_TICK_MS) != 0) {
        *out = PIECE_CUT_PLAIN;
        return true;
    }
    waiter->next = cuts->waiters;
    cuts->waiters = waiter;
    return false;
}

/* ---- life ---- */

static void part_close(void *arg)
{
    struct blobs *blobs = arg;
    blobs->cuts.closed = true;
    uv_close((uv_handle_t *)&blobs->cuts.timer, NULL);
}

int blob_cut__start(struct blobs *blobs)
{
    struct blob_cuts *cuts = &blobs->cuts;
    struct loop *loop = blobs->config.loop;
    if (uv_timer_init(&loop->uv, &cuts->timer) != 0)
        return E_INTERNAL;
    cuts->timer.data = blobs;
    cuts->closed = false;
    cuts->part = (struct loop_part){.name = "cuts", .arg = blobs, .close = part_close};
    loop_add_part(loop, &cuts->part);
    return 0;
}
