/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status page: its policy names what the document really holds; figures are the agent's; at
 * 1,000 members, with every list full and every text hostile, the answer stays below its maximum
 * and takes little time; repository names only where they may be (HTTP-7); maps of pieces.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bytes.h"
#include "digest.h"
#include "topology.h"
#include "../../src/daemon/blob_internal.h"
#include "../../src/daemon/mirror_internal.h"
#include "../../src/daemon/node_internal.h"
#include "../../src/daemon/page.h"
#include "../../src/daemon/peerlink.h"

#define MEMBERS    1000
#define PIECES_MAX 3000

/* An agent of which the page's sources alone are there. Its clock stands until we move it. */
static struct {
    struct agent agent;
    struct node node;
    struct config config;
    struct mirror mirror;
    struct blobs blobs;
    struct blob blob[PAGE_SWARMS_MAX + 4];
    struct blob_piece pieces[PAGE_SWARMS_MAX + 4][PIECES_MAX];
    struct blob_reader reader;
    struct peerlink links[PAGE_SESSIONS_SEEN_MAX + 40];
    struct tcp_peer peers[PAGE_SESSIONS_SEEN_MAX + 40];
    struct prng prng;
} fake;

static int env_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    (void)host, (void)to, (void)msg, (void)msg_bytes;
    return 0;
}

static void env_random(void *host, uint8_t *out, size_t out_bytes)
{
    (void)host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&fake.prng);
}

static void *env_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    return loop_alloc(NULL, old, new_bytes);
}

static void env_trace(void *host, enum log_level level, const char *line)
{
    (void)host, (void)level, (void)line;
}

static struct peer_addr addr_of(unsigned number)
{
    struct peer_addr addr = {.port = 65002};
    const uint8_t ip[16] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, (uint8_t)(number >> 8), (uint8_t)number};
    memcpy(addr.ip, ip, sizeof ip);
    return addr;
}

static void label(struct label *out, const char *what, unsigned number)
{
    char text[LABEL_BYTES_MAX + 1];
    (void)snprintf(text, sizeof text, "%s-%u", what, number);
    assert_int_equal(label_set(out, text, strlen(text)), 0);
}

static int make(void **state)
{
    (void)state;
    static const struct env env = {NULL, env_send, env_random, env_alloc, env_trace};
    struct cache_config cache = {.capacity_bytes = 1 << 20};
    struct mesh_config mesh = {.cluster_id = "unit", .self_addr = addr_of(0)};
    struct store store;
    memset(&fake, 0, sizeof fake);
    prng_seed(&fake.prng, (const uint8_t *)"page", 4);
    fake.agent.loop.now_us = 1000000000;
    label(&mesh.topology.region, "region", 1);
    label(&mesh.topology.zone, "zone", 0);
    assert_int_equal(mesh_new(&env, &mesh, fake.agent.loop.now_us, &fake.node.mesh), 0);
    fake.node.loop = &fake.agent.loop;
    fake.node.config = &fake.config;
    fake.node.self_addr = mesh.self_addr;
    fake.node.tcp.node = &fake.node;
    (void)snprintf(fake.node.admission.cluster_id, sizeof fake.node.admission.cluster_id, "unit");
    assert_int_equal(store_memory_new(1 << 20, &store), 0);
    assert_int_equal(cache_new(&env, &cache, &store, &fake.agent.cache), 0);
    assert_int_equal(history_new(&fake.agent.loop, &fake.blobs.history), 0);
    fake.blobs.config.node = &fake.node;
    fake.agent.node = &fake.node;
    fake.agent.blobs = &fake.blobs;
    fake.agent.mirror = &fake.mirror;
    return 0;
}

static int end(void **state)
{
    (void)state;
    HASH_CLEAR(by_digest, fake.blobs.by_digest);
    history_free(fake.blobs.history);
    cache_free(fake.agent.cache);
    mesh_free(fake.node.mesh);
    return 0;
}

static void seed(unsigned count, unsigned zones)
{
    static struct member members[MEMBERS];
    for (unsigned i = 0; i < count; i++) {
        members[i] =
            (struct member){.addr = addr_of(i + 1), .incarnation = 1, .state = MEMBER_ALIVE};
        members[i].key.bytes[0] = (uint8_t)(i + 1);
        label(&members[i].topology.region, "region", 1);
        label(&members[i].topology.zone, "zone", i % zones);
        node_id_of("unit", &members[i].addr, &members[i].id);
    }
    assert_int_equal(mesh_seed_members(fake.node.mesh, fake.agent.loop.now_us, members, count), 0);
}

static struct digest digest_number(unsigned number)
{
    struct digest digest = {.algorithm = DIGEST_SHA256};
    digest.bytes[0] = (uint8_t)number;
    digest.bytes[31] = (uint8_t)(number >> 8);
    return digest;
}

/* A blob of so many pieces with a reader, nothing of it here. */
static struct blob *add_blob(unsigned number, uint32_t pieces)
{
    struct blob *blob = &fake.blob[number];
    assert_true(pieces <= PIECES_MAX);
    *blob = (struct blob){.blobs = &fake.blobs, .pieces = fake.pieces[number]};
    blob->info.digest = digest_number(number);
    blob->info.size_bytes = (uint64_t)pieces * PIECE_BYTES_MIN;
    blob->layout = (struct piece_layout){
        .blob_bytes = blob->info.size_bytes, .piece_bytes = PIECE_BYTES_MIN, .piece_count = pieces};
    blob->readers = &fake.reader;
    HASH_ADD(by_digest, fake.blobs.by_digest, info.digest, sizeof blob->info.digest, blob);
    return blob;
}

static void piece(struct blob *blob, uint32_t index, enum blob_tier tier, enum distance distance)
{
    blob->pieces[index] =
        (struct blob_piece){.have = true, .tier = (uint8_t)tier, .distance = (uint8_t)distance};
    blob->have_count++;
}

static json_t *answer(bool names, size_t *bytes)
{
    char *text = page_json(&fake.agent, names);
    assert_non_null(text);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    if (bytes != NULL)
        *bytes = strlen(text);
    free(text);
    return root;
}

static json_int_t at(const json_t *root, const char *part, const char *key)
{
    const json_t *value = json_object_get(json_object_get(root, part), key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

/* ---- the document ---- */

static void policy_names_what_the_document_holds(void **state)
{
    (void)state;
    static const char *const tags[2][2] = {{"<style>", "</style>"}, {"<script>", "</script>"}};
    char policy[PAGE_POLICY_BYTES], text[64], want[96];
    char *page = strndup((const char *)page_html, page_html_bytes);
    page_policy(policy);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t hash[32];
        const char *first = strstr(page, tags[i][0]) + strlen(tags[i][0]);
        assert_null(strstr(first, tags[i][0])); /* one of each, or the other one would not run */
        sha256_of(first, (size_t)(strstr(first, tags[i][1]) - first), hash);
        (void)sodium_bin2base64(text, sizeof text, hash, 32, sodium_base64_VARIANT_ORIGINAL);
        (void)snprintf(want, sizeof want, "%s-src 'sha256-%s';", i == 0 ? "style" : "script", text);
        assert_non_null(strstr(policy, want));
    }
    assert_non_null(strstr(policy, "default-src 'none'"));
    assert_null(strstr(policy, "unsafe"));
    /* Self-contained, and nothing in it that the policy would stop. */
    assert_ptr_equal(strstr(page, "<!doctype html>"), page);
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "style=\""));
    assert_null(strstr(page, "onclick"));
    assert_null(strstr(page, "innerHTML"));
    assert_null(strstr(page, "https://"));
    free(page);
}

/* ---- the figures ---- */

static void figures_are_the_agents(void **state)
{
    (void)state;
    seed(5, 2);
    fake.blobs.counters.piece_bytes[BLOB_FROM_ORIGIN] = 30;
    fake.blobs.counters.client_bytes[BLOB_FROM_DISK] = 40;
    fake.mirror.counters.direct_bytes = 7;
    fake.mirror.counters.direct_fallback = 2;
    fake.agent.started_us = fake.agent.loop.now_us - 5000000;
    json_t *root = answer(false, NULL);
    assert_int_equal(at(root, "arrived", "registry"), 30);
    assert_int_equal(at(root, "arrived", "zone"), 0);
    assert_int_equal(at(root, "arrived", "around"), 7);
    assert_int_equal(at(root, "given", "disk"), 40);
    assert_int_equal(at(root, "given", "around"), 7);
    assert_int_equal(at(root, "around", "fallback"), 2);
    assert_int_equal(json_integer_value(json_object_get(root, "uptime_us")), 5000000);
    assert_int_equal(at(root, "members", "known"), 6);
    assert_false(json_is_true(json_object_get(root, "alone")));
    assert_string_equal(json_string_value(json_object_get(root, "outsider")), "");
    const json_t *zones = json_object_get(json_object_get(root, "members"), "zones"), *zone;
    size_t i, own = 0, members = 0;
    json_array_foreach(zones, i, zone)
    {
        const char *map = json_string_value(json_object_get(zone, "map"));
        members += strlen(map);
        own += json_is_true(json_object_get(zone, "self"));
        assert_int_equal(json_is_true(json_object_get(zone, "self")), strchr(map, '*') != NULL);
        assert_int_equal(json_integer_value(json_object_get(zone, "alive")), strlen(map));
    }
    assert_int_equal(json_array_size(zones), 2);
    assert_int_equal(own, 1);
    assert_int_equal(members, 6);
    json_decref(root);
}

static void who_keeps_coming_without_the_secret_is_named(void **state)
{
    (void)state;
    struct peer_addr from = addr_of(7);
    uint64_t unsaid, now_us = fake.agent.loop.now_us;
    (void)outsiders_note(&fake.node.outsiders, now_us - OUTSIDERS_LAST_US, &from, &unsaid);
    (void)outsiders_note(&fake.node.outsiders, now_us, &from, &unsaid);
    json_t *root = answer(false, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "outsider")), "10.1.0.7:65002");
    json_decref(root);
}

static void pull_tells_who_sent_what_and_why(void **state)
{
    (void)state;
    struct history *history = fake.blobs.history;
    struct digest digest = digest_number(1);
    struct history_subject subject = {&digest, 100, "r.test", "lib/app"};
    struct member known;
    struct node_id stranger = {{9}};
    seed(3, 1);
    assert_true(gossip_at(mesh_gossip(fake.node.mesh), 0, &known));
    history_began(history, &subject, false);
    history_origin(history, &digest, 10);
    history_fetch(history, &digest, FETCH_NO_KEEPER);
    history_fetch_failed(history, &digest, E_UNREACHABLE);
    (void)history_peer(history, &digest, &stranger, 20);
    (void)history_peer(history, &digest, &known.id, 70);
    history_around(history, &subject, AROUND_FAILED, E_TIMEOUT);
    history_around_given(history, &digest, 5);
    json_t *root = answer(false, NULL);
    const json_t *pull = json_array_get(json_object_get(root, "pulls"), 0);
    const json_t *first = json_array_get(json_object_get(pull, "peers"), 0);
    const json_t *second = json_array_get(json_object_get(pull, "peers"), 1);
    assert_string_equal(json_string_value(json_object_get(pull, "digest")), "sha256:010000000000");
    assert_true(json_is_true(json_object_get(pull, "running")));
    assert_int_equal(json_integer_value(json_object_get(pull, "registry_bytes")), 10);
    assert_int_equal(json_integer_value(json_object_get(pull, "around_bytes")), 5);
    assert_int_equal(json_integer_value(json_object_get(first, "bytes")), 70);
    assert_string_equal(json_string_value(json_object_get(first, "zone")), "zone-0");
    assert_string_equal(json_string_value(json_object_get(first, "distance")), "zone");
    assert_string_equal(json_string_value(json_object_get(second, "zone")), "");
    assert_string_equal(json_string_value(json_object_get(second, "distance")), "");
    /* Every reason that a pull names has its words, and they are those of explain. */
    const json_t *read = json_array_get(json_object_get(pull, "reads"), 0);
    const json_t *words = json_object_get(json_object_get(root, "words"), "reads");
    const char *reason = json_string_value(json_object_get(read, "reason"));
    assert_string_equal(json_string_value(json_object_get(words, reason)),
                        history_fetch_text(FETCH_NO_KEEPER));
    words = json_object_get(json_object_get(root, "words"), "around");
    assert_string_equal(json_string_value(json_object_get(words, "failed")),
                        history_around_text(AROUND_FAILED));
    assert_string_equal(json_string_value(json_object_get(pull, "around_error")),
                        err_text(E_TIMEOUT));
    assert_non_null(json_object_get(pull, "failed"));
    json_decref(root);
}

static void names_are_for_the_control_socket(void **state)
{
    (void)state;
    struct digest digest = digest_number(3);
    struct history_subject subject = {&digest, 100, "secret.registry", "secret/repository"};
    (void)add_blob(3, 4);
    history_began(fake.blobs.history, &subject, false);
    char *open = page_json(&fake.agent, false), *named = page_json(&fake.agent, true);
    assert_null(strstr(open, "secret"));
    assert_non_null(strstr(named, "\"registry\":\"secret.registry\""));
    assert_non_null(strstr(named, "\"repository\":\"secret/repository\""));
    char text[DIGEST_TEXT_BYTES];
    (void)digest_text(&digest, text);
    assert_null(strstr(open, text));
    assert_non_null(strstr(strstr(named, text) + 1, text)); /* in swarms and in pulls */
    free(open);
    free(named);
}

/* ---- maps ---- */

static void map_shows_where_each_piece_came_from(void **state)
{
    (void)state;
    char map[BLOB_MAP_CELLS_MAX + 1];
    struct blob_view view;
    struct blob *blob = add_blob(0, 8);
    piece(blob, 0, BLOB_FROM_ORIGIN, DISTANCE_VSWITCH);
    piece(blob, 1, BLOB_FROM_PEER, DISTANCE_VSWITCH);
    piece(blob, 2, BLOB_FROM_PEER, DISTANCE_ZONE);
    piece(blob, 3, BLOB_FROM_PEER, DISTANCE_REGION);
    piece(blob, 4, BLOB_FROM_PEER, DISTANCE_ELSEWHERE);
    piece(blob, 5, BLOB_FROM_CONTENT, DISTANCE_VSWITCH);
    piece(blob, 7, (enum blob_tier)0, DISTANCE_VSWITCH); /* recovered */
    assert_int_equal(blobs_map(&fake.blobs, &blob->info.digest, map), 8);
    assert_string_equal(map, "RVZNEH.H");
    blob->layout.blob_bytes = blob->info.size_bytes -= 10; /* the last piece is shorter */
    assert_true(blobs_view(&fake.blobs, &blob->info.digest, &view));
    assert_int_equal(view.have_bytes, 7 * PIECE_BYTES_MIN - 10);
    struct digest unknown = digest_number(99);
    assert_int_equal(blobs_map(&fake.blobs, &unknown, map), 0);
    assert_string_equal(map, "");
}

static void map_of_many_pieces_is_cut(void **state)
{
    (void)state;
    char map[BLOB_MAP_CELLS_MAX + 1];
    struct blob *blob = add_blob(0, 2 * BLOB_MAP_CELLS_MAX);
    piece(blob, 0, BLOB_FROM_PEER, DISTANCE_ZONE);
    piece(blob, 2, BLOB_FROM_PEER, DISTANCE_ZONE);
    piece(blob, 3, BLOB_FROM_PEER, DISTANCE_ZONE);
    piece(blob, 2 * BLOB_MAP_CELLS_MAX - 1, BLOB_FROM_ORIGIN, DISTANCE_ZONE);
    assert_int_equal(blobs_map(&fake.blobs, &blob->info.digest, map), BLOB_MAP_CELLS_MAX);
    assert_memory_equal(map, "zZ..", 4);
    assert_int_equal(map[BLOB_MAP_CELLS_MAX - 1], 'r');
    struct blob *large = add_blob(1, PIECES_MAX); /* looked at in steps: all cells are covered */
    for (uint32_t i = 0; i < PIECES_MAX; i++)
        piece(large, i, BLOB_FROM_ORIGIN, DISTANCE_ZONE);
    assert_int_equal(blobs_map(&fake.blobs, &large->info.digest, map), BLOB_MAP_CELLS_MAX);
    assert_int_equal(strspn(map, "R"), BLOB_MAP_CELLS_MAX);
}

/* ---- bounds ---- */

static void hostile_pulls(void)
{
    char repository[REPOSITORY_BYTES_MAX + 1];
    memset(repository, '\1', sizeof repository - 1); /* six bytes each in JSON */
    repository[sizeof repository - 1] = '\0';
    for (unsigned i = 0; i < HISTORY_PULLS_MAX; i++) {
        struct digest digest = digest_number(i);
        struct history_subject subject = {&digest, UINT64_MAX, i == 5 ? "\xff\xfe" : repository,
                                          i == 6 ? "<script>\"" : repository};
        history_began(fake.blobs.history, &subject, true);
        for (int reason = 1; reason < FETCH_REASON_COUNT; reason++)
            history_fetch(fake.blobs.history, &digest, (enum fetch_reason)reason);
        for (int why = 1; why < AROUND_COUNT; why++)
            history_around(fake.blobs.history, &subject, (enum history_around)why, E_TIMEOUT);
        history_fetch_failed(fake.blobs.history, &digest, E_UNREACHABLE);
        for (uint8_t peer = 1; peer <= HISTORY_PEERS_MAX + 2; peer++) {
            struct node_id id = {{peer}};
            (void)history_peer(fake.blobs.history, &digest, &id, UINT32_MAX);
        }
    }
}

static void full_links(void)
{
    size_t count = sizeof fake.links / sizeof fake.links[0];
    for (size_t i = 0; i < count; i++) {
        fake.peers[i].addr = addr_of((unsigned)i);
        fake.links[i].state = LINK_OPEN;
        fake.links[i].peer = &fake.peers[i];
        fake.links[i].bytes_in = i;
        fake.links[i].next = i + 1 < count ? &fake.links[i + 1] : NULL;
    }
    fake.node.tcp.links = fake.links;
}

static double cpu_ms(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void everything_full_stays_bounded(void **state)
{
    (void)state;
    size_t bytes = 0;
    seed(MEMBERS - 1, 60);
    hostile_pulls();
    full_links();
    for (unsigned i = 0; i < PAGE_SWARMS_MAX + 4; i++)
        for (uint32_t k = 0, count = add_blob(i, PIECES_MAX)->layout.piece_count; k < count; k += 2)
            piece(&fake.blob[i], k, BLOB_FROM_PEER, (enum distance)(k % DISTANCE_COUNT));
    json_t *root = answer(true, &bytes);
    assert_true(bytes > 30000 && bytes < PAGE_JSON_BYTES_MAX);
    const json_t *members = json_object_get(root, "members");
    const json_t *sessions = json_object_get(json_object_get(root, "sessions"), "rows");
    assert_int_equal(at(root, "members", "known"), MEMBERS);
    assert_int_equal(at(root, "members", "looked_at"), MEMBERS);
    assert_int_equal(json_array_size(json_object_get(members, "zones")), PAGE_ZONES_MAX + 1);
    assert_int_equal(json_array_size(json_object_get(root, "pulls")), PAGE_PULLS_MAX);
    assert_int_equal(json_array_size(json_object_get(root, "swarms")), PAGE_SWARMS_MAX);
    assert_int_equal(at(root, "sessions", "open"), PAGE_SESSIONS_SEEN_MAX);
    assert_int_equal(json_array_size(sessions), PAGE_SESSIONS_MAX);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(sessions, 0), "in")),
                     PAGE_SESSIONS_SEEN_MAX - 1); /* most bytes first */
    json_decref(root);
    double began_ms = cpu_ms();
    for (unsigned i = 0; i < 20; i++)
        free(page_json(&fake.agent, false));
    double took_ms = (cpu_ms() - began_ms) / 20;
    print_message("1,000 members, all lists full: %zu bytes, %.2f ms\n", bytes, took_ms);
    assert_true(took_ms < 100); /* a few ms; sanitizers and a busy machine have their share */
}

static void texts_that_are_none_become_a_mark(void **state)
{
    (void)state;
    struct digest digest = digest_number(1);
    struct history_subject subject = {&digest, 1, "\xff\xfe", "<img src=x>\"\\"};
    history_began(fake.blobs.history, &subject, false);
    json_t *root = answer(true, NULL);
    const json_t *pull = json_array_get(json_object_get(root, "pulls"), 0);
    assert_string_equal(json_string_value(json_object_get(pull, "registry")), "?");
    assert_string_equal(json_string_value(json_object_get(pull, "repository")), "<img src=x>\"\\");
    json_decref(root);
}

/* Members who answer nothing are suspected and die: addresses of a few, the number of all. */
static void trouble_is_listed_to_its_maximum(void **state)
{
    (void)state;
    struct mesh_event event;
    struct gossip_stats stats;
    seed(60, 1);
    for (unsigned i = 0; i < 2000; i++) {
        fake.agent.loop.now_us += 100000;
        mesh_advance(fake.node.mesh, fake.agent.loop.now_us);
        while (mesh_next_result(fake.node.mesh, fake.agent.loop.now_us, &event)) {
        }
        gossip_stats(mesh_gossip(fake.node.mesh), &stats);
        if (stats.alive <= 61 - PAGE_TROUBLE_MAX - 2)
            break;
    }
    json_t *root = answer(false, NULL);
    const json_t *members = json_object_get(root, "members");
    const json_t *zone = json_array_get(json_object_get(members, "zones"), 0);
    size_t listed = json_array_size(json_object_get(members, "trouble"));
    json_int_t ill = json_integer_value(json_object_get(zone, "suspect")) +
                     json_integer_value(json_object_get(zone, "leaving")) +
                     json_integer_value(json_object_get(zone, "gone"));
    assert_int_equal(listed, PAGE_TROUBLE_MAX);
    assert_true(at(root, "members", "trouble_more") > 0);
    assert_int_equal((json_int_t)listed + at(root, "members", "trouble_more"), ill);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(policy_names_what_the_document_holds, make, end),
        cmocka_unit_test_setup_teardown(figures_are_the_agents, make, end),
        cmocka_unit_test_setup_teardown(who_keeps_coming_without_the_secret_is_named, make, end),
        cmocka_unit_test_setup_teardown(pull_tells_who_sent_what_and_why, make, end),
        cmocka_unit_test_setup_teardown(names_are_for_the_control_socket, make, end),
        cmocka_unit_test_setup_teardown(map_shows_where_each_piece_came_from, make, end),
        cmocka_unit_test_setup_teardown(map_of_many_pieces_is_cut, make, end),
        cmocka_unit_test_setup_teardown(everything_full_stays_bounded, make, end),
        cmocka_unit_test_setup_teardown(texts_that_are_none_become_a_mark, make, end),
        cmocka_unit_test_setup_teardown(trouble_is_listed_to_its_maximum, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
