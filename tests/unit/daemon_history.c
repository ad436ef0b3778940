/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `explain` remembers: where a pull begins and ends, peers beyond the table, what goes when a
 * ring is full, tags and manifests; names of images; and the page for people.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/history.h"
#include "../../src/daemon/image_name.h"
#include "../../src/daemon/loop.h"
#include "../../src/daemon/status_text.h"

static struct loop loop; /* its clock alone: it stands until we move it */

static struct digest digest_number(unsigned number)
{
    struct digest digest = {.algorithm = DIGEST_SHA256};
    digest.bytes[0] = (uint8_t)number;
    digest.bytes[1] = (uint8_t)(number >> 8);
    return digest;
}

static struct history *made(void)
{
    struct history *history = NULL;
    loop.now_us = 1000000;
    assert_int_equal(history_new(&loop, &history), 0);
    return history;
}

static struct history_subject subject_of(const struct digest *digest, const char *repository)
{
    return (struct history_subject){digest, 100, "r.test", repository};
}

static void pull_tells_where_bytes_came_from(void **state)
{
    (void)state;
    struct history *history = made();
    struct digest digest = digest_number(1);
    struct history_subject subject = subject_of(&digest, "lib/app");
    struct node_id peer = {{7}};
    history_began(history, &subject, false);
    history_fetch(history, &digest, FETCH_NO_KEEPER);
    history_fetch(history, &digest, FETCH_NO_KEEPER);
    history_fetch_failed(history, &digest, E_UNREACHABLE);
    history_origin(history, &digest, 60);
    assert_non_null(history_peer(history, &digest, &peer, 30));
    assert_null(history_peer(history, &digest, &peer, 10)); /* known: nothing to fill in */
    history_given(history, &digest, BLOB_FROM_MEMORY, 100);
    history_around(history, &subject, AROUND_FAILED, E_TIMEOUT);
    history_around_given(history, &digest, 5);
    loop.now_us += 5000000;
    history_ended(history, &digest);
    const struct history_pull *pull = history_find(history, &digest, 0);
    assert_string_equal(pull->registry, "r.test");
    assert_string_equal(pull->repository, "lib/app");
    assert_int_equal(pull->origin_bytes, 60);
    assert_int_equal(pull->peer_count, 1);
    assert_int_equal(pull->peers[0].bytes, 40);
    assert_int_equal(pull->peers[0].pieces, 2);
    assert_int_equal(pull->given_bytes[BLOB_FROM_MEMORY], 100);
    assert_int_equal(pull->fetches[FETCH_NO_KEEPER].count, 2);
    assert_true(pull->fetches[FETCH_NO_KEEPER].last_wall_s > 0);
    assert_int_equal(pull->failures.count, 1);
    assert_int_equal(pull->last_error, E_UNREACHABLE);
    assert_int_equal(pull->around[AROUND_FAILED].count, 1);
    assert_int_equal(pull->around_error, E_TIMEOUT);
    assert_int_equal(pull->around_bytes, 5);
    assert_int_equal(pull->ended_us - pull->began_us, 5000000);
    assert_null(history_find(history, &digest, 1));
    history_free(history);
}

static void pull_goes_on_after_a_short_pause_only(void **state)
{
    (void)state;
    struct history *history = made();
    struct digest digest = digest_number(1);
    struct history_subject subject = subject_of(&digest, "a"), other = subject_of(&digest, "b");
    history_began(history, &subject, true);
    history_began(history, &subject, false); /* a second reader */
    history_ended(history, &digest);
    assert_int_equal(history_find(history, &digest, 0)->readers, 1);
    history_ended(history, &digest);
    history_ended(history, &digest); /* one too many does no harm */
    loop.now_us += HISTORY_PAUSE_US - 1;
    history_began(history, &subject, false);
    history_ended(history, &digest);
    assert_null(history_find(history, &digest, 1));
    assert_true(history_find(history, &digest, 0)->ahead);
    loop.now_us += HISTORY_PAUSE_US;
    history_began(history, &subject, false);
    assert_non_null(history_find(history, &digest, 1));
    assert_false(history_find(history, &digest, 0)->ahead);
    history_began(history, &other, false); /* of another repository: by itself */
    assert_string_equal(history_find(history, &digest, 0)->repository, "b");
    assert_string_equal(history_find(history, &digest, 1)->repository, "a");
    history_free(history);
}

static void rings_forget_the_oldest(void **state)
{
    (void)state;
    struct history *history = made();
    for (unsigned i = 0; i < HISTORY_PULLS_MAX + 3; i++) {
        struct digest digest = digest_number(i);
        struct history_subject subject = subject_of(&digest, "a");
        history_began(history, &subject, false);
    }
    struct digest digest = digest_number(2);
    assert_null(history_find(history, &digest, 0));
    digest = digest_number(3);
    assert_non_null(history_find(history, &digest, 0));
    assert_non_null(history_find(history, NULL, HISTORY_PULLS_MAX - 1));
    assert_null(history_find(history, NULL, HISTORY_PULLS_MAX));
    for (unsigned i = 0; i <= HISTORY_TAGS_MAX; i++) {
        char tag[16];
        (void)snprintf(tag, sizeof tag, "t%u", i);
        digest = digest_number(i);
        history_tag(history, "r", "a", tag, &digest);
    }
    assert_false(history_tag_find(history, "r", "a", "t0", &digest));
    assert_true(history_tag_find(history, "r", "a", "t64", &digest));
    for (unsigned i = 0; i <= HISTORY_MANIFESTS_MAX; i++) {
        struct manifest_descriptor child = {.digest = digest_number(1000)};
        digest = digest_number(i);
        history_manifest(history, &digest, &child, 1);
    }
    struct digest out[2];
    digest = digest_number(0);
    assert_int_equal(history_blobs(history, &digest, out, 2), 1);
    assert_memory_equal(&out[0], &digest, sizeof digest); /* forgotten: itself */
    history_free(history);
}

static void what_is_not_known_is_not_noted(void **state)
{
    (void)state;
    struct history *history = made();
    struct digest digest = digest_number(1);
    struct node_id peer = {{7}};
    history_origin(history, &digest, 1);
    history_given(history, &digest, BLOB_FROM_DISK, 1);
    history_fetch(history, &digest, FETCH_LEASE);
    history_fetch_failed(history, &digest, E_IO);
    history_ended(history, &digest);
    assert_null(history_peer(history, &digest, &peer, 1));
    assert_null(history_find(history, NULL, 0));
    history_free(history);
    history_free(NULL);
}

static void further_peers_are_counted_together(void **state)
{
    (void)state;
    struct history *history = made();
    struct digest digest = digest_number(1);
    struct history_subject subject = subject_of(&digest, "a");
    history_began(history, &subject, false);
    for (unsigned i = 0; i < HISTORY_PEERS_MAX + 2; i++) {
        struct node_id peer = {{(uint8_t)i}};
        struct history_peer *place = history_peer(history, &digest, &peer, 5);
        assert_int_equal(place != NULL, i < HISTORY_PEERS_MAX);
    }
    assert_int_equal(history_find(history, &digest, 0)->peer_count, HISTORY_PEERS_MAX);
    assert_int_equal(history_find(history, &digest, 0)->other_peer_bytes, 10);
    history_free(history);
}

static void image_is_its_blobs(void **state)
{
    (void)state;
    struct history *history = made();
    struct digest index = digest_number(1), image = digest_number(2), found, out[8];
    struct manifest_descriptor below[] = {{.digest = image}, {.digest = digest_number(9)}};
    struct manifest_descriptor layers[] = {
        {.digest = digest_number(3)}, {.digest = digest_number(4)}, {.digest = digest_number(3)}};
    history_manifest(history, &index, below, 2);
    history_manifest(history, &image, layers, 3);
    history_tag(history, "r", "a", "1", &image);
    history_tag(history, "r", "a", "1", &index); /* moved */
    assert_true(history_tag_find(history, "r", "a", "1", &found));
    assert_memory_equal(&found, &index, sizeof found);
    assert_false(history_tag_find(history, "r", "b", "1", &found));
    assert_false(history_tag_find(history, "q", "a", "1", &found));
    assert_int_equal(history_blobs(history, &index, out, 8), 3); /* 3, 4, 9: each once */
    assert_int_equal(history_blobs(history, &image, out, 8), 2);
    assert_int_equal(history_blobs(history, &image, out, 1), 1);
    history_free(history);
}

static void every_reason_has_words(void **state)
{
    (void)state;
    for (int i = 1; i < AROUND_COUNT; i++) {
        assert_string_not_equal(history_around_name((enum history_around)i), "unknown");
        assert_string_not_equal(history_around_text((enum history_around)i), "");
    }
    for (int i = 1; i < FETCH_REASON_COUNT; i++)
        assert_string_not_equal(history_fetch_text((enum fetch_reason)i), "");
    assert_string_equal(history_around_name(AROUND_COUNT), "unknown");
    assert_string_equal(history_fetch_text((enum fetch_reason)0), "");
}

static void image_names_are_read_as_written(void **state)
{
    (void)state;
    static const char *const good[][4] = {
        {"alpine", "docker.io", "library/alpine", "latest"},
        {"a/b:1", "docker.io", "a/b", "1"},
        {"GHCR.io/a/b/c:v1.2", "ghcr.io", "a/b/c", "v1.2"},
        {"localhost/x", "localhost", "x", "latest"},
        {"r.test:5000/lib/app:1", "r.test:5000", "lib/app", "1"},
        {"r:5000/a", "r:5000", "a", "latest"},
    };
    static const char *const bad[] = {
        "",
        ":1",
        "A",
        "a b",
        "a//b",
        "r.test/",
        "a:",
        "a@sha",
        "/a",
        "a:1:2",
        "a?x=1",
        "-a",
        "a\r\nHost: x",
        "../a",
        "a/",
        "a:-1",
        "r.test:x/",
        "a#b",
        "r.test/a%2fb:1",
    };
    struct image_name name;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(image_name_parse(good[i][0], &name), 0);
        assert_string_equal(name.registry, good[i][1]);
        assert_string_equal(name.repository, good[i][2]);
        assert_string_equal(name.tag, good[i][3]);
        assert_false(name.has_digest);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(image_name_parse(bad[i], &name), E_MALFORMED);
    char text[128] = "q/a:1@sha256:";
    (void)memset(text + 13, 'a', 64);
    assert_int_equal(image_name_parse(text, &name), 0);
    assert_true(name.has_digest);
    assert_string_equal(name.tag, "1");
    char longest[600];
    (void)memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(image_name_parse(longest, &name), E_MALFORMED);
}

static void explanation_is_written_for_people(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    json_t *answer = json_loads(
        "{\"asked\":\"r/a:1\",\"digest\":\"sha256:00\",\"not_pulled\":2,\"blobs\":[{"
        "\"digest\":\"sha256:01\",\"size_bytes\":2097152,\"here\":{\"bytes\":2097152,"
        "\"verified\":true},\"holders\":[{\"addr\":\"10.0.0.2:65002\",\"whole\":true}],\"pulls\":[{"
        "\"registry\":\"r\",\"repository\":\"a\",\"began\":\"T\",\"took_ms\":2500,"
        "\"registry_bytes\":1048576,\"around_bytes\":3145728,\"given_bytes\":{\"peer\":1048576,"
        "\"disk\":0},"
        "\"peers\":[{\"addr\":\"10.0.0.2:65002\",\"id\":\"1a2b3c4d\",\"bytes\":1048576,"
        "\"pieces\":4}],\"registry_reads\":[{\"reason\":\"lease\",\"count\":1,\"last\":\"T\","
        "\"meaning\":\"normal\"}],\"failed_reads\":{\"count\":1,\"last\":\"T\",\"error\":\"e\"}}"
        "]}]}",
        0, NULL);
    FILE *out = open_memstream(&text, &bytes);
    explain_text(answer, out);
    (void)fclose(out);
    json_decref(answer);
    assert_string_equal(text, "r/a:1 is sha256:00\n"
                              "sha256:01  2.0 MiB\n"
                              "  here      2.0 MiB, all of it, digest verified\n"
                              "  also at   10.0.0.2:65002         all of it\n"
                              "  pull      T, took 2s, r/a\n"
                              "    came    from the registry                  1.0 MiB\n"
                              "            10.0.0.2:65002         1a2b3c4d    1.0 MiB in 4 pieces\n"
                              "            the registry, around the mesh      3.0 MiB\n"
                              "    given   to clients: peer 1.0 MiB\n"
                              "    read    lease, 1 times, last T: normal\n"
                              "    failed  1 reads of the registry, last T: e\n"
                              "2 further blobs of it were not asked for here\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pull_tells_where_bytes_came_from),
        cmocka_unit_test(pull_goes_on_after_a_short_pause_only),
        cmocka_unit_test(rings_forget_the_oldest),
        cmocka_unit_test(what_is_not_known_is_not_noted),
        cmocka_unit_test(further_peers_are_counted_together),
        cmocka_unit_test(image_is_its_blobs),
        cmocka_unit_test(every_reason_has_words),
        cmocka_unit_test(image_names_are_read_as_written),
        cmocka_unit_test(explanation_is_written_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
