/* SPDX-License-Identifier: Apache-2.0 */
/* Which cut a small range is read in: what is here, what the mesh says, who waits how long. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/blob_internal.h"

#define MIB  (1024u * 1024)
#define SIZE ((uint64_t)256 * MIB)
#define S    1000000ull

static struct loop loop;
static struct blobs *blobs;
static struct blob plain, fine;
static bool plain_open, fine_open, content_busy;
static struct blob_piece plain_pieces[256], fine_pieces[16384];
static uint32_t members;
static uint64_t lookups;
static int lookup_status;
static struct cut_waiter waiter;
static enum piece_cut told;
static unsigned told_count;

/* ---- in place of blob.c, blob_content.c, node.c and the mesh ---- */

struct blob *blobs__find(struct blobs *of, const struct digest *digest, enum piece_cut cut)
{
    assert_ptr_equal(of, blobs);
    if (digest->bytes[0] != 1)
        return NULL;
    if (cut == PIECE_CUT_PLAIN)
        return plain_open ? &plain : NULL;
    return fine_open ? &fine : NULL;
}

bool blobs_content_expected(struct blobs *of, const struct digest *digest)
{
    (void)of, (void)digest;
    return content_busy;
}

const uint8_t *node_lookup_key(const struct node *node)
{
    static const uint8_t key[32];
    (void)node;
    return key;
}

struct gossip *node_gossip(struct node *node)
{
    (void)node;
    return NULL;
}

struct mesh *node_mesh(struct node *node)
{
    (void)node;
    return NULL;
}

size_t gossip_count(const struct gossip *gossip)
{
    (void)gossip;
    return members;
}

int mesh_lookup(struct mesh *mesh, uint64_t now_us, const struct blob_key *key, uint64_t *lookup_id)
{
    (void)mesh, (void)now_us, (void)key;
    if (lookup_status == 0)
        *lookup_id = ++lookups;
    return lookup_status;
}

/* ---- fixture ---- */

static void on_known(void *arg, enum piece_cut cut)
{
    assert_ptr_equal(arg, &waiter);
    told = cut;
    told_count++;
}

static void open_cut(struct blob *blob, enum piece_cut cut, struct blob_piece *pieces)
{
    *blob = (struct blob){.blobs = blobs, .pieces = pieces};
    blob->info.size_bytes = SIZE;
    blob->info.cut = cut;
    assert_int_equal(piece_layout_cut(SIZE, cut, &blob->layout), 0);
}

static int set_up(void **state)
{
    static const struct loop_options options = {
        .log_fd = -1, .log_level = LOG_ERROR, .stop_grace_us = 200000};
    (void)state;
    assert_int_equal(loop_init(&loop, &options), 0);
    blobs = calloc(1, sizeof *blobs);
    assert_non_null(blobs);
    blobs->config.loop = &loop;
    assert_int_equal(blob_cut__start(blobs), 0);
    memset(plain_pieces, 0, sizeof plain_pieces);
    memset(fine_pieces, 0, sizeof fine_pieces);
    open_cut(&plain, PIECE_CUT_PLAIN, plain_pieces);
    open_cut(&fine, PIECE_CUT_FINE, fine_pieces);
    plain_open = fine_open = content_busy = false;
    members = 8;
    lookups = told_count = 0;
    lookup_status = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), 0);
    loop_close(&loop);
    free(blobs);
    return 0;
}

/* True: told at once. */
static bool ask(uint64_t first, uint64_t end, enum piece_cut *out)
{
    waiter = (struct cut_waiter){.range = {.size_bytes = SIZE, .first = first, .end = end},
                                 .known = on_known,
                                 .arg = &waiter};
    waiter.range.digest.algorithm = DIGEST_SHA256;
    waiter.range.digest.bytes[0] = 1;
    return blobs_cut_of(blobs, &waiter, out);
}

static void expect_at_once(uint64_t first, uint64_t end, enum piece_cut wanted)
{
    enum piece_cut cut;
    assert_true(ask(first, end, &cut));
    assert_int_equal(cut, wanted);
}

static void answer(uint64_t lookup_id, uint8_t completeness)
{
    struct dht_result result = {.lookup_id = lookup_id, .provider_count = completeness > 0};
    result.providers[0].completeness = completeness;
    blob_cut__found(blobs, &result);
}

static void pass(uint64_t us)
{
    loop.now_us += us;
    blob_cut__wake(blobs);
}

/* ---- tests ---- */

static void long_reads_and_small_blobs_are_plain(void **state)
{
    enum piece_cut cut;
    (void)state;
    expect_at_once(5, 5 + MIB + 1, PIECE_CUT_PLAIN);
    assert_false(ask(5, 5 + MIB, &cut));
    blobs_cut_unwait(blobs, &waiter);
    blobs_cut_unwait(blobs, &waiter); /* fine */
    waiter.range.size_bytes = 64ull * MIB - 1;
    assert_true(blobs_cut_of(blobs, &waiter, &cut));
    assert_int_equal(cut, PIECE_CUT_PLAIN);
    pass(S);
    assert_int_equal(told_count, 0);
}

static void whoever_is_alone_reads_fine(void **state)
{
    (void)state;
    members = 1;
    expect_at_once(0, 1, PIECE_CUT_FINE);
    assert_int_equal(lookups, 0);
    lookup_status = E_FULL;
    members = 8;
    loop.now_us += 11 * S;
    expect_at_once(0, 1, PIECE_CUT_FINE); /* nobody can be asked */
}

static void what_is_here_decides(void **state)
{
    struct blob_reader reader = {.range = true};
    (void)state;
    members = 1;
    plain_open = fine_open = true;
    expect_at_once(3 * MIB, 4 * MIB, PIECE_CUT_FINE);
    plain_pieces[3].have = true;
    plain.have_count = 1;
    expect_at_once(3 * MIB, 4 * MIB, PIECE_CUT_PLAIN);
    expect_at_once(3 * MIB, 3 * MIB + 1, PIECE_CUT_PLAIN);
    expect_at_once(4 * MIB - 1, 4 * MIB + 1, PIECE_CUT_FINE); /* half of it is not here */
    plain.have_count = 127;
    expect_at_once(0, 1, PIECE_CUT_FINE);
    plain.have_count = 128; /* of 256 */
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
    plain.have_count = 1;
    plain.readers = &reader;
    expect_at_once(0, 1, PIECE_CUT_FINE);
    reader.range = false; /* all of it is being pulled */
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
    plain.readers = NULL;
    plain.verified = true;
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
    plain.verified = false;
    plain.info.size_bytes--; /* one of the sizes is wrong: blobs_get tells */
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
}

static void fine_pieces_that_are_here_need_no_answer(void **state)
{
    enum piece_cut cut;
    (void)state;
    fine_open = true;
    fine_pieces[1].have = fine_pieces[2].have = true;
    expect_at_once(PIECE_BYTES_FINE, 3 * PIECE_BYTES_FINE, PIECE_CUT_FINE);
    assert_int_equal(lookups, 0);
    assert_false(ask(PIECE_BYTES_FINE, 3 * PIECE_BYTES_FINE + 1, &cut));
    blobs_cut_unwait(blobs, &waiter);
    assert_int_equal(lookups, 1);
}

static void the_meshs_answer_is_waited_for_and_remembered(void **state)
{
    enum piece_cut cut;
    (void)state;
    assert_false(ask(0, 1, &cut));
    answer(77, 255); /* somebody else's question */
    assert_int_equal(told_count, 0);
    answer(1, 127); /* not half of it */
    assert_int_equal(told_count, 1);
    assert_int_equal(told, PIECE_CUT_FINE);
    expect_at_once(5, 6, PIECE_CUT_FINE);
    assert_int_equal(lookups, 1);

    loop.now_us += 6 * S;
    expect_at_once(5, 6, PIECE_CUT_FINE);
    assert_int_equal(lookups, 1);
    loop.now_us += 6 * S; /* asked again, and the old answer holds meanwhile */
    expect_at_once(5, 6, PIECE_CUT_FINE);
    assert_int_equal(lookups, 2);
    answer(2, 128);
    expect_at_once(5, 6, PIECE_CUT_PLAIN);
    loop.now_us += 11 * S;
    expect_at_once(5, 6, PIECE_CUT_PLAIN);
    answer(3, 0);
    expect_at_once(5, 6, PIECE_CUT_FINE);
    assert_int_equal(told_count, 1);
}

static void what_nobody_had_long_ago_is_asked_for_first(void **state)
{
    enum piece_cut cut;
    (void)state;
    assert_false(ask(0, 1, &cut));
    answer(1, 0);
    assert_int_equal(told, PIECE_CUT_FINE);
    loop.now_us += 10 * S; /* somebody may have pulled it by now */
    assert_false(ask(0, 1, &cut));
    assert_int_equal(lookups, 2);
    answer(2, 255);
    assert_int_equal(told_count, 2);
    assert_int_equal(told, PIECE_CUT_PLAIN);
    loop.now_us += 10 * S; /* who had it has it still, most likely */
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
    assert_int_equal(lookups, 3);
    answer(3, 0);
    loop.now_us += 10 * S;
    lookup_status = E_FULL; /* nobody can be asked */
    expect_at_once(0, 1, PIECE_CUT_FINE);
}

static void silence_is_an_answer_in_the_end(void **state)
{
    enum piece_cut cut;
    (void)state;
    assert_false(ask(0, 1, &cut));
    pass(99000);
    assert_int_equal(told_count, 0);
    pass(2000);
    assert_int_equal(told_count, 1);
    assert_int_equal(told, PIECE_CUT_FINE);
    expect_at_once(0, 1, PIECE_CUT_FINE);
    answer(1, 255); /* late, and heard all the same */
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
}

static void containerds_copy_is_waited_for(void **state)
{
    enum piece_cut cut;
    (void)state;
    members = 1;
    content_busy = true;
    assert_false(ask(0, 1, &cut));
    content_busy = false; /* it has none */
    pass(20000);
    assert_int_equal(told_count, 1);
    assert_int_equal(told, PIECE_CUT_FINE);
    content_busy = true; /* being hashed: that read waits for it as others do */
    assert_false(ask(0, 1, &cut));
    pass(101000);
    assert_int_equal(told_count, 2);
    assert_int_equal(told, PIECE_CUT_PLAIN);
}

static void the_answer_nobody_looks_at_makes_room(void **state)
{
    enum piece_cut cut;
    (void)state;
    members = 1;
    for (uint32_t i = 0; i < 3 * CUT_NOTES_MAX; i++) {
        loop.now_us++;
        expect_at_once(0, 1, PIECE_CUT_FINE);
        waiter.range.digest.bytes[1] = (uint8_t)i;
        waiter.range.digest.bytes[2] = (uint8_t)(i >> 8);
        waiter.range.digest.bytes[3] = 1;
        assert_true(blobs_cut_of(blobs, &waiter, &cut));
    }
    members = 8;
    expect_at_once(0, 1, PIECE_CUT_FINE); /* still known */
    assert_int_equal(lookups, 0);
    waiter.range.digest.bytes[3] = 1; /* number 0, long forgotten */
    assert_false(blobs_cut_of(blobs, &waiter, &cut));
    blobs_cut_unwait(blobs, &waiter);
}

static void nobody_waits_once_it_is_over(void **state)
{
    (void)state;
    blobs->cuts.closed = true;
    expect_at_once(0, 1, PIECE_CUT_PLAIN);
    blobs->cuts.closed = false;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(long_reads_and_small_blobs_are_plain),
        TEST(whoever_is_alone_reads_fine),
        TEST(what_is_here_decides),
        TEST(fine_pieces_that_are_here_need_no_answer),
        TEST(the_meshs_answer_is_waited_for_and_remembered),
        TEST(what_nobody_had_long_ago_is_asked_for_first),
        TEST(silence_is_an_answer_in_the_end),
        TEST(containerds_copy_is_waited_for),
        TEST(the_answer_nobody_looks_at_makes_room),
        TEST(nobody_waits_once_it_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
