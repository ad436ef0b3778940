/* SPDX-License-Identifier: Apache-2.0 */
/* Offers of the content store that come due together: a bounded number of pieces is told in each
 * tick, the rest in the next ones, and one that cannot be offered holds nobody up. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon_scratch.h"
#include "../../src/daemon/blob.h"
#include "../../src/daemon/content.h"

/* Pieces of one blob: a fifth of a tick's, so that the fifth one passes the bound. */
#define BLOB_BYTES (3300ull * PIECE_BYTES_MAX)
#define BLOBS      12u

static struct loop loop;
static struct content *content;
static uint32_t offered, refused, gone;
static uint8_t unready = 255; /* first byte of the one that cannot be offered */

/* ---- in place of blob_content.c ---- */

int blob_content__offer(struct blobs *blobs, const struct digest *digest, struct content_copy *copy)
{
    (void)blobs;
    assert_int_equal(copy->size_bytes, BLOB_BYTES);
    if (digest->bytes[0] == unready) {
        refused++;
        return E_AGAIN;
    }
    offered++;
    return 0;
}

void blob_content__end(struct blobs *blobs, const struct digest *digest,
                       const struct content_copy *copy)
{
    (void)blobs;
    (void)digest;
    (void)copy;
    gone++;
}

void blob_content__wake(struct blobs *blobs, const struct digest *digest)
{
    (void)blobs;
    (void)digest;
}

uint64_t blob_content__give_up(struct blobs *blobs, const struct digest *digest)
{
    (void)blobs;
    (void)digest;
    return 0;
}

bool blob_content__waits(struct blob *blob)
{
    (void)blob;
    return false;
}

void blobs_content_seen(struct blobs *blobs, const struct digest *digest)
{
    (void)blobs;
    (void)digest;
}

bool blobs_content_expected(struct blobs *blobs, const struct digest *digest)
{
    (void)blobs;
    (void)digest;
    return false;
}

/* ---- fixture ---- */

static int no_file(void *self, uint64_t id)
{
    (void)self;
    (void)id;
    return 0;
}

static void tick(void)
{
    content->tick.timer_cb(&content->tick); /* as the loop does each second */
}

/* A blob whose file was found right while its live blob could not take it. */
static void add_ready(uint8_t number)
{
    const uint8_t key[32] = {number};
    struct content_entry *entry = content__remember(content, key);
    assert_non_null(entry);
    entry->copy = loop_alloc(NULL, NULL, sizeof *entry->copy);
    assert_non_null(entry->copy);
    *entry->copy = (struct content_copy){.content = content, .refs = 1, .size_bytes = BLOB_BYTES};
    entry->state = CONTENT_READY;
}

static int set_up(void **state)
{
    static const struct loop_options options = {
        .log_fd = -1, .log_level = LOG_ERROR, .stop_grace_us = 200000};
    (void)state;
    offered = refused = gone = 0;
    unready = 255;
    assert_int_equal(loop_init(&loop, &options), 0);
    assert_int_equal(content_new(NULL, &loop, scratch_directory, scratch_directory, &content), 0);
    content->store.remove = no_file;
    content->scan_due_us = UINT64_MAX;
    assert_int_equal(content_start(content), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), 0);
    content_free(content);
    loop_close(&loop);
    return 0;
}

/* ---- tests ---- */

static void pieces_told_in_a_tick_are_bounded(void **state)
{
    struct piece_layout layout;
    (void)state;
    assert_int_equal(piece_layout_of(BLOB_BYTES, &layout), 0);
    uint32_t most = (CONTENT_PIECES_PER_TICK + layout.piece_count - 1) / layout.piece_count;
    assert_true(most > 1 && most < BLOBS / 2);
    for (uint8_t i = 0; i < BLOBS; i++)
        add_ready(i);
    for (uint32_t wanted = 0; wanted < BLOBS;) {
        tick();
        wanted = wanted + most < BLOBS ? wanted + most : BLOBS;
        assert_int_equal(offered, wanted);
        assert_int_equal(content->counters.offered, wanted);
    }
    tick();
    assert_int_equal(offered, BLOBS); /* once each */
    assert_int_equal(gone, 0);
}

static void what_cannot_be_offered_holds_nobody_up(void **state)
{
    (void)state;
    unready = 0; /* the one seen longest ago: first in every tick */
    for (uint8_t i = 0; i < 3; i++)
        add_ready(i);
    tick();
    assert_int_equal(offered, 2);
    tick();
    assert_int_equal(refused, 2);
    unready = 255;
    tick();
    assert_int_equal(offered, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pieces_told_in_a_tick_are_bounded),
        TEST(what_cannot_be_offered_holds_nobody_up),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
