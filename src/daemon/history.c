/* SPDX-License-Identifier: Apache-2.0 */
/* Rings of the last pulls, tags and manifests; see history.h. */
#include "history.h"

#include <string.h>

#include "bytes.h"
#include "loop.h"

struct tag_note {
    char registry[HOST_BYTES_MAX + 1];
    char repository[REPOSITORY_BYTES_MAX + 1];
    char tag[TAG_BYTES_MAX + 1];
    struct digest digest;
};

struct manifest_note {
    struct digest digest;
    uint32_t count;
    struct digest children[];
};

struct history {
    struct loop *loop;
    struct history_pull *pulls[HISTORY_PULLS_MAX]; /* owned; NULL: not used yet */
    uint64_t pull_count;                           /* ever: the next one's place, modulo the room */
    struct tag_note *tags[HISTORY_TAGS_MAX];
    uint64_t tag_count;
    struct manifest_note *manifests[HISTORY_MANIFESTS_MAX];
    uint64_t manifest_count;
};

/* ---- words ---- */

const char *history_around_name(enum history_around why)
{
    static const char *const names[AROUND_COUNT] = {
        [AROUND_NO_FIRST_BYTE] = "no-first-byte", [AROUND_FAILED] = "failed",
        [AROUND_NOT_OPENED] = "not-opened",       [AROUND_PRIVATE] = "private",
        [AROUND_PASSTHROUGH] = "passthrough",     [AROUND_TOO_LARGE] = "too-large",
    };
    return why > 0 && why < AROUND_COUNT ? names[why] : "unknown";
}

const char *history_around_text(enum history_around why)
{
    static const char *const texts[AROUND_COUNT] = {
        [AROUND_NO_FIRST_BYTE] = "nothing came through the mesh in time; `shoal doctor` looks why",
        [AROUND_FAILED] = "the mesh gave up on it",
        [AROUND_NOT_OPENED] = "the agent had no room for it on the mesh",
        [AROUND_PRIVATE] = "p2p keeps this repository off the mesh",
        [AROUND_PASSTHROUGH] = "mode: passthrough sends everything to the registry",
        [AROUND_TOO_LARGE] = "larger than what the mesh takes",
    };
    return why > 0 && why < AROUND_COUNT ? texts[why] : "";
}

const char *history_fetch_text(enum fetch_reason reason)
{
    static const char *const texts[FETCH_REASON_COUNT] = {
        [FETCH_LEASE] = "it was this node's turn to read for the mesh: the normal case",
        [FETCH_ALONE] = "no other member was known; if there should be some, run `shoal doctor`",
        [FETCH_NO_KEEPER] = "no other node answered in time; is the mesh port open? run `shoal "
                            "doctor`",
        [FETCH_NO_PROGRESS] = "peers that had it, or were to read it, were too slow",
        [FETCH_REPAIR] = "bytes did not match the digest and were read again",
    };
    const char *text = reason > 0 && reason < FETCH_REASON_COUNT ? texts[reason] : NULL;
    return text == NULL ? "" : text;
}

/* ---- pulls ---- */

static struct history_pull *pull_at(const struct history *history, uint64_t back)
{
    if (back >= history->pull_count || back >= HISTORY_PULLS_MAX)
        return NULL;
    return history->pulls[(history->pull_count - 1 - back) % HISTORY_PULLS_MAX];
}

static struct history_pull *pull_of(const struct history *history, const struct digest *digest)
{
    struct history_pull *pull;
    for (uint64_t back = 0; (pull = pull_at(history, back)) != NULL; back++)
        if (digest_equal(&pull->digest, digest))
            return pull;
    return NULL;
}

static void event_note(struct history_event *event)
{
    event->count += event->count < UINT32_MAX;
    event->last_wall_s = loop_wall_s();
}

static bool goes_on(const struct history *history, const struct history_pull *pull,
                    const struct history_subject *subject)
{
    bool same = strcmp(pull->registry, subject->registry) == 0 &&
                strcmp(pull->repository, subject->repository) == 0;
    return same &&
           (pull->readers > 0 || loop_now_us(history->loop) - pull->ended_us < HISTORY_PAUSE_US);
}

/* The pull that goes on, or a new one in the place of the oldest. NULL: memory is short. */
static struct history_pull *pull_for(struct history *history, const struct history_subject *subject,
                                     bool ahead)
{
    struct history_pull *pull = pull_of(history, subject->digest);
    if (pull != NULL && goes_on(history, pull, subject))
        return pull;
    struct history_pull **place = &history->pulls[history->pull_count % HISTORY_PULLS_MAX];
    if (*place == NULL)
        *place = loop_alloc(NULL, NULL, sizeof **place);
    pull = *place;
    if (pull == NULL)
        return NULL;
    *pull = (struct history_pull){
        .digest = *subject->digest,
        .size_bytes = subject->size_bytes,
        .ahead = ahead,
        .began_wall_s = loop_wall_s(),
        .began_us = loop_now_us(history->loop),
        .ended_us = loop_now_us(history->loop),
    };
    /* What does not fit stays empty: both come checked from the router and the configuration. */
    if (text_copy(pull->registry, sizeof pull->registry, subject->registry) != 0 ||
        text_copy(pull->repository, sizeof pull->repository, subject->repository) != 0)
        pull->registry[0] = pull->repository[0] = '\0';
    history->pull_count++;
    return pull;
}

void history_began(struct history *history, const struct history_subject *subject, bool ahead)
{
    struct history_pull *pull = pull_for(history, subject, ahead);
    if (pull == NULL)
        return;
    pull->readers++;
    pull->ended_us = 0;
}

void history_ended(struct history *history, const struct digest *digest)
{
    struct history_pull *pull = pull_of(history, digest);
    if (pull == NULL || pull->readers == 0 || --pull->readers > 0)
        return;
    pull->ended_us = loop_now_us(history->loop);
    pull->ended_wall_s = loop_wall_s();
}

void history_given(struct history *history, const struct digest *digest, enum blob_tier tier,
                   uint32_t bytes)
{
    struct history_pull *pull = pull_of(history, digest);
    ASSERT(tier < BLOB_TIER_COUNT);
    if (pull != NULL)
        pull->given_bytes[tier] += bytes;
}

void history_origin(struct history *history, const struct digest *digest, uint32_t bytes)
{
    struct history_pull *pull = pull_of(history, digest);
    if (pull != NULL)
        pull->origin_bytes += bytes;
}

struct history_peer *history_peer(struct history *history, const struct digest *digest,
                                  const struct node_id *peer, uint32_t bytes)
{
    struct history_pull *pull = pull_of(history, digest);
    if (pull == NULL)
        return NULL;
    for (uint32_t i = 0; i < pull->peer_count; i++) {
        struct history_peer *known = &pull->peers[i];
        if (!node_id_equal(&known->id, peer))
            continue;
        known->bytes += bytes;
        known->pieces++;
        return NULL;
    }
    if (pull->peer_count == HISTORY_PEERS_MAX) {
        pull->other_peer_bytes += bytes;
        return NULL;
    }
    struct history_peer *place = &pull->peers[pull->peer_count++];
    *place = (struct history_peer){.id = *peer, .bytes = bytes, .pieces = 1};
    return place;
}

void history_fetch(struct history *history, const struct digest *digest, enum fetch_reason reason)
{
    struct history_pull *pull = pull_of(history, digest);
    ASSERT(reason < FETCH_REASON_COUNT);
    if (pull != NULL)
        event_note(&pull->fetches[reason]);
}

void history_fetch_failed(struct history *history, const struct digest *digest, int error)
{
    struct history_pull *pull = pull_of(history, digest);
    if (pull == NULL)
        return;
    event_note(&pull->failures);
    pull->last_error = error;
}

void history_around(struct history *history, const struct history_subject *subject,
                    enum history_around why, int error)
{
    struct history_pull *pull = pull_for(history, subject, false);
    ASSERT(why > 0 && why < AROUND_COUNT);
    if (pull == NULL)
        return;
    event_note(&pull->around[why]);
    if (error != 0)
        pull->around_error = error;
}

void history_around_given(struct history *history, const struct digest *digest, uint32_t bytes)
{
    struct history_pull *pull = pull_of(history, digest);
    if (pull != NULL)
        pull->around_bytes += bytes;
}

const struct history_pull *history_find(const struct history *history, const struct digest *digest,
                                        unsigned skip)
{
    const struct history_pull *pull;
    for (uint64_t back = 0; (pull = pull_at(history, back)) != NULL; back++)
        if ((digest == NULL || digest_equal(&pull->digest, digest)) && skip-- == 0)
            return pull;
    return NULL;
}

/* ---- tags and manifests ---- */

static struct tag_note *tag_of(const struct history *history, const char *registry,
                               const char *repository, const char *tag)
{
    for (size_t i = 0; i < HISTORY_TAGS_MAX && history->tags[i] != NULL; i++) {
        struct tag_note *note = history->tags[i];
        if (strcmp(note->tag, tag) == 0 && strcmp(note->repository, repository) == 0 &&
            strcmp(note->registry, registry) == 0)
            return note;
    }
    return NULL;
}

void history_tag(struct history *history, const char *registry, const char *repository,
                 const char *tag, const struct digest *digest)
{
    struct tag_note *note = tag_of(history, registry, repository, tag);
    if (note == NULL) {
        struct tag_note **place = &history->tags[history->tag_count % HISTORY_TAGS_MAX];
        if (*place == NULL)
            *place = loop_alloc(NULL, NULL, sizeof **place);
        note = *place;
        if (note == NULL)
            return;
        history->tag_count++;
    }
    note->digest = *digest;
    if (text_copy(note->registry, sizeof note->registry, registry) != 0 ||
        text_copy(note->repository, sizeof note->repository, repository) != 0 ||
        text_copy(note->tag, sizeof note->tag, tag) != 0)
        note->registry[0] = note->tag[0] = '\0'; /* nobody can ask for it */
}

bool history_tag_find(const struct history *history, const char *registry, const char *repository,
                      const char *tag, struct digest *out)
{
    const struct tag_note *note = tag_of(history, registry, repository, tag);
    if (note != NULL)
        *out = note->digest;
    return note != NULL;
}

static const struct manifest_note *manifest_of(const struct history *history,
                                               const struct digest *digest)
{
    for (size_t i = 0; i < HISTORY_MANIFESTS_MAX && history->manifests[i] != NULL; i++)
        if (digest_equal(&history->manifests[i]->digest, digest))
            return history->manifests[i];
    return NULL;
}

void history_manifest(struct history *history, const struct digest *manifest,
                      const struct manifest_descriptor *found, size_t count)
{
    if (manifest_of(history, manifest) != NULL)
        return;
    size_t kept = count < HISTORY_CHILDREN_MAX ? count : HISTORY_CHILDREN_MAX;
    struct manifest_note *note =
        loop_alloc(NULL, NULL, sizeof *note + kept * sizeof note->children[0]);
    if (note == NULL)
        return;
    *note = (struct manifest_note){.digest = *manifest, .count = (uint32_t)kept};
    for (size_t i = 0; i < kept; i++)
        note->children[i] = found[i].digest;
    struct manifest_note **place =
        &history->manifests[history->manifest_count++ % HISTORY_MANIFESTS_MAX];
    (void)loop_alloc(NULL, *place, 0);
    *place = note;
}

struct blob_list {
    struct digest *out;
    size_t count, max;
};

static void list_add(struct blob_list *list, const struct digest *digest)
{
    for (size_t i = 0; i < list->count; i++)
        if (digest_equal(&list->out[i], digest))
            return;
    if (list->count < list->max)
        list->out[list->count++] = *digest;
}

size_t history_blobs(const struct history *history, const struct digest *digest, struct digest *out,
                     size_t max)
{
    struct blob_list list = {.out = out, .max = max};
    const struct manifest_note *top = manifest_of(history, digest);
    if (top == NULL) {
        list_add(&list, digest);
        return list.count;
    }
    for (uint32_t i = 0; i < top->count; i++) {
        const struct manifest_note *below = manifest_of(history, &top->children[i]);
        if (below == NULL)
            list_add(&list, &top->children[i]);
        for (uint32_t j = 0; below != NULL && j < below->count; j++)
            list_add(&list, &below->children[j]);
    }
    return list.count;
}

/* ---- life ---- */

int history_new(struct loop *loop, struct history **out)
{
    struct history *history = loop_alloc(NULL, NULL, sizeof *history);
    if (history == NULL)
        return E_NO_MEMORY;
    *history = (struct history){.loop = loop};
    *out = history;
    return 0;
}

void history_free(struct history *history)
{
    if (history == NULL)
        return;
    for (size_t i = 0; i < HISTORY_PULLS_MAX; i++)
        (void)loop_alloc(NULL, history->pulls[i], 0);
    for (size_t i = 0; i < HISTORY_TAGS_MAX; i++)
        (void)loop_alloc(NULL, history->tags[i], 0);
    for (size_t i = 0; i < HISTORY_MANIFESTS_MAX; i++)
        (void)loop_alloc(NULL, history->manifests[i], 0);
    (void)loop_alloc(NULL, history, 0);
}
