/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registries of the configuration: merging over the built-in ones, settings and rules of an
 * entry, and what would loosen ORG-1, ORG-2 or ORG-6.
 */
#include "daemon_config_load.h"

static void registries_merge_over_the_built_in(void **state)
{
    (void)state;
    const char *yaml = "registries:\n"
                       "  - name: docker.io\n"
                       "    endpoint: https://mirror.example\n"
                       "    realmHosts: [auth.example, other.example:8443]\n"
                       "  - name: reg.local:5000\n"
                       "    plainHttp: true\n"
                       "    allowPrivate: true\n"
                       "    default: true\n"
                       "    p2p: false\n";
    assert_int_equal(load(yaml), 0);
    assert_int_equal(config.registry_count, 6);
    struct registries all = config_registries(&config);
    const struct registry_entry *docker = registries_find(&all, "docker.io");
    assert_non_null(docker);
    assert_string_equal(docker->endpoint, "https://mirror.example");
    assert_string_equal(docker->realm_hosts[1], "other.example:8443");
    assert_false(docker->is_default);
    const struct registry_entry *local = registries_find(&all, "reg.local:5000");
    assert_non_null(local);
    assert_string_equal(local->endpoint, "http://reg.local:5000");
    assert_true(local->allow_private.count > 0 && local->is_default);
    assert_false(local->p2p);
    config_close(&config);

    assert_int_equal(load_env(NULL, "registries=[{name: a.example}]", NULL), 0);
    assert_int_equal(config.registry_count, 6);
    config_close(&config);
    assert_int_equal(load_env("builtinRegistries: false\n", "registries=[{name: a.example}]", NULL),
                     0);
    assert_int_equal(config.registry_count, 1);
    assert_false(config.registry_entries[0].is_default);
    config_close(&config);
}

static void bad_registries_are_refused(void **state)
{
    (void)state;
    expect_file_error("registries:\n  - endpoint: https://a\n",
                      "2: registries: an entry without name");
    expect_file_error("registries:\n  - name: a\n  - name: a\n",
                      "3: registries.name: \"a\" is there twice");
    expect_file_error("registries:\n  - name: A/b\n",
                      "2: registries.name: \"A/b\" is not allowed; allowed: host[:port] in lower "
                      "case, *.host[:port], *");
    expect_file_error("registries:\n  - name: a\n    endpoint: http://a\n",
                      "2: registries.endpoint: \"http://a\" is plain http; allowed only with "
                      "plainHttp: true for this registry");
    expect_file_error("registries:\n  - name: a\n    endpoint: https://a\n    plainHttp: true\n",
                      "2: registries.endpoint: \"https://a\" contradicts plainHttp: true");
    expect_file_error("registries:\n  - name: a\n    endpoint: https://a/v2\n",
                      "2: registries.endpoint: \"https://a/v2\" is not allowed; allowed: "
                      "http[s]://host[:port] without path");
    expect_file_error("registries:\n  - name: a\n    colour: red\n",
                      "3: unknown key \"registries.colour\"; known: name, endpoint, ca, "
                      "clientCertificate, clientKey, credentials, shared, plainHttp, "
                      "allowPrivate, proxy, connections, rateMbit, default, p2p, copies, tags, "
                      "realmHosts, storage");
    expect_file_error("registries:\n  - name: a\n    p2p: 3\n",
                      "3: registries.p2p: \"3\" is not allowed; allowed: true | false | a list of "
                      "\"REPOSITORIES on\" or \"REPOSITORIES off\"");
    expect_file_error("registries:\n  - {name: a, default: true}\n  - {name: b, default: true}\n",
                      "3: registries.default: only one registry can be the default");
    expect_file_error("registries:\n  - name: a\n    storage: [\"https://s/b\"]\n",
                      "3: registries.storage: \"https://s/b\" is not allowed; allowed: "
                      "https://host[:port]/path/ with a slash at its end, at most 511 bytes, host "
                      "in lower case");
    expect_file_error("registries:\n  - name: a\n    storage: [\"http://s/b/\"]\n",
                      "2: registries.storage: \"http://s/b/\" is plain http; allowed only with "
                      "plainHttp: true for this registry");
    expect_file_error("registries:\n  - name: a\n    storage: [\"https://s/\", \"https://s/\", "
                      "\"https://s/\", \"https://s/\", \"https://s/\"]\n",
                      "3: registries.storage: more than 4");
    expect_file_error("registries: [a]\n", "1: registries: must be a list of maps");
}

/* Proxy, client certificate, and repositories off the mesh (ACL-10). A proxy's password would be a
 * secret in the configuration: it is refused and not repeated (HRD-4). */
static void bad_rules_for_tags_are_refused(void **state)
{
    static const char *const rules[] = {
        "fixed",   "* never", "* ",     "*",         "* 0s",   "* 30",   "* 61m",     "* 3601s",
        "A fixed", ": fixed", "a: off", "a:b:c off", "a  off", "a off ", "a:b/c off", " off",
    };
    char many[1024] = "registries: [{name: a, tags: [\"* off\"";
    size_t used = strlen(many);

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        char yaml[128], message[256];
        (void)snprintf(yaml, sizeof yaml, "registries: [{name: a, tags: [\"%s\"]}]\n", rules[i]);
        (void)snprintf(message, sizeof message,
                       "1: registries.tags: \"%s\" is not allowed; allowed: a list of "
                       "\"REPOSITORIES[:TAGS] origin | fixed | off | 1s..1h\"",
                       rules[i]);
        expect_file_error(yaml, message);
    }
    for (unsigned i = 0; i < REGISTRY_TAG_RULES_MAX; i++)
        used += (size_t)snprintf(many + used, sizeof many - used, ", \"* off\"");
    (void)snprintf(many + used, sizeof many - used, "]}]\n");
    expect_file_error(many, "1: registries.tags: more than 16");
}

static void registries_have_settings_of_their_own(void **state)
{
    (void)state;
    assert_int_equal(load("registries:\n"
                          "  - name: a\n"
                          "    clientCertificate: /etc/me.crt\n"
                          "    clientKey: /etc/me.key\n"
                          "    proxy: http://proxy.local:3128/\n"
                          "    connections: 8\n"
                          "    rateMbit: 400\n"
                          "    p2p: [\"team/open on\", \"team/* off\"]\n"
                          "    copies: zone\n"
                          "    tags: [\"base/*:V_1.0-* fixed\", \"ci/* 90s\", \"a:b 1h\", "
                          "\"*:latest off\", \"* origin\"]\n"
                          "  - {name: b, p2p: false, copies: mesh}\n"
                          "  - {name: c}\n"),
                     0);
    struct registries all = config_registries(&config);
    const struct registry_entry *a = registries_find(&all, "a");
    assert_string_equal(a->client_cert, "/etc/me.crt");
    assert_string_equal(a->client_key, "/etc/me.key");
    assert_string_equal(a->proxy, "http://proxy.local:3128");
    assert_int_equal(a->connections_max, 8);
    assert_int_equal(a->rate_bytes_s, 50000000);
    assert_int_equal(a->p2p_rule_count, 2);
    assert_true(registry_p2p(a, "team/open") && !registry_p2p(a, "team/x") && registry_p2p(a, "x"));
    assert_false(registry_p2p(registries_find(&all, "b"), "x"));
    assert_int_equal(a->copies, REGISTRY_COPIES_ZONE);
    assert_int_equal(a->tag_rule_count, 5);
    assert_int_equal(registry_tag_rule(a, "base/x", "V_1.0-3")->resolve, REGISTRY_RESOLVE_FIXED);
    assert_int_equal(registry_tag_rule(a, "ci/x", "1")->ttl_s, 90);
    assert_int_equal(registry_tag_rule(a, "a", "b")->ttl_s, 3600);
    assert_int_equal(registry_tag_rule(a, "x", "latest")->resolve, REGISTRY_RESOLVE_OFF);
    assert_int_equal(registry_tag_rule(a, "x", "1")->resolve, REGISTRY_RESOLVE_TTL);
    assert_int_equal(registry_tag_rule(a, "x", "1")->ttl_s, 0);
    assert_int_equal(registries_find(&all, "b")->copies, REGISTRY_COPIES_MESH);
    assert_int_equal(registries_find(&all, "c")->copies, REGISTRY_COPIES_DEFAULT);
    config_close(&config);

    expect_file_error("registries: [{name: a, connections: 1025}]\n",
                      "1: registries.connections: \"1025\" is not allowed; allowed: 0..1024");
    expect_file_error("registries: [{name: a, copies: both}]\n",
                      "1: registries.copies: \"both\" is not allowed; allowed: mesh | zone");
    expect_file_error("registries: [{name: a, rateMbit: -1}]\n",
                      "1: registries.rateMbit: \"-1\" is not allowed; allowed: 0..1000000");
    expect_file_error("registries: [{name: a, rateMbit: 99999999999999999999999}]\n",
                      "1: registries.rateMbit: \"99999999999999999999999\" is not allowed; "
                      "allowed: 0..1000000");
    expect_file_error("registries: [{name: a, clientKey: /k}]\n",
                      "1: registries: clientCertificate and clientKey of a need each other");
    static const struct {
        const char *entry, *message;
    } logins[] = {
        {"{name: a, shared: true}", "a: shared: true needs credentials"},
        {"{name: a, credentials: /f, plainHttp: true}",
         "a: credentials would be readable on the way: not with plainHttp"},
        {"{name: a, credentials: /f, shared: true, plainHttp: true}",
         "a: credentials would be readable on the way: not with plainHttp"},
        {"{name: \"*\", credentials: /f, shared: true}",
         "*: credentials would go to whatever host a client names: not for this pattern"},
    };
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) { /* ACL-7 */
        char yaml[128], message[256];
        (void)snprintf(yaml, sizeof yaml, "registries: [%s]\n", logins[i].entry);
        (void)snprintf(message, sizeof message, "1: registries: %s", logins[i].message);
        expect_file_error(yaml, message);
    }
    /* HRD-4: a refused value is not repeated where it may hold a password or a signature. */
    static const char *const secrets[] = {
        "registries: [{name: a, endpoint: \"https://user:hidden@p\"}]\n",
        "registries: [{name: \"user:hidden@p\"}]\n",
        "registries: [{name: a, storage: [\"https://p?Signature=hidden\"]}]\n",
        "registries: [{name: a, realmHosts: [\"user:hidden@p\"]}]\n",
        "listen: {mesh: \"user:hidden@p\"}\n",
    };
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        assert_int_equal(load(secrets[i]), E_CONFIG);
        assert_non_null(strstr(error.text, ": \"...\" is not allowed; allowed: "));
        assert_null(strstr(error.text, "hidden"));
    }
    static const char *const proxies[] = {"http://user:hidden@p", "https://p", "p:3128",
                                          "http://p/x", "http://"};
    for (size_t i = 0; i < sizeof proxies / sizeof proxies[0]; i++) {
        char yaml[128];
        (void)snprintf(yaml, sizeof yaml, "registries: [{name: a, proxy: \"%s\"}]\n", proxies[i]);
        expect_file_error(yaml, "1: registries.proxy: not allowed; allowed: http://host[:port], "
                                "without user and path");
    }
    static const char *const rules[] = {"on", "team", "team/* maybe", "Team on", " on", "team  on"};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        char yaml[128];
        (void)snprintf(yaml, sizeof yaml, "registries: [{name: a, p2p: [\"%s\"]}]\n", rules[i]);
        assert_int_equal(load(yaml), E_CONFIG);
        assert_non_null(strstr(error.text, "registries.p2p: "));
    }
    char many[1024] = "";
    size_t used = 0;
    for (int i = 0; i <= REGISTRY_P2P_RULES_MAX; i++)
        used += (size_t)snprintf(many + used, sizeof many - used, "%s\"x on\"",
                                 i == 0 ? "registries: [{name: a, p2p: [" : ", ");
    (void)snprintf(many + used, sizeof many - used, "]}]\n");
    expect_file_error(many, "1: registries.p2p: more than 16");
}

/* A pattern leads to the registry that was named, by https, and "*" to public addresses only
 * (ORG-1, ORG-2, ORG-6). */
static void patterns_cannot_be_loosened_org_6(void **state)
{
    (void)state;
    static const char other[] = "\"; give the registry an entry of its own name";
    static const struct {
        const char *entry, *key, *name;
    } rows[] = {
        {"{name: \"*.a\", plainHttp: true}", "plainHttp", "*.a"},
        {"{name: \"*\", plainHttp: true}", "plainHttp", "*"},
        {"{name: \"*.a\", endpoint: https://b}", "endpoint", "*.a"},
        {"{name: \"*.a\", default: true}", "default", "*.a"},
        {"{name: \"*\", allowPrivate: true}", "allowPrivate", "*"},
        {"{name: \"*.a\", storage: [\"https://s/\"]}", "storage", "*.a"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char yaml[256], message[256];
        (void)snprintf(yaml, sizeof yaml, "registries: [%s]\n", rows[i].entry);
        (void)snprintf(message, sizeof message, "1: registries.%s: not for the pattern \"%s%s",
                       rows[i].key, rows[i].name, other);
        expect_file_error(yaml, message);
    }
    assert_int_equal(load("registries: [{name: \"*.a\", allowPrivate: true}, {name: \"*\"}]\n"), 0);
    assert_int_equal(config.registry_count, 7);
    struct registries all = config_registries(&config);
    assert_null(registries_find(&all, "*"));
    config_close(&config);
}

/* ORG-2: what is not public is reached only where an entry lists it. */
static void private_addresses_are_listed_org_2(void **state)
{
    (void)state;
    static const struct {
        const char *entry;
        bool loopback, ten_one, ten_two;
    } rows[] = {
        {"{name: a.example}", false, false, false},
        {"{name: a.example, allowPrivate: false}", false, false, false},
        {"{name: a.example, allowPrivate: true}", false, true, true},
        {"{name: a.example, allowPrivate: [10.1.0.0/16]}", false, true, false},
        {"{name: a.example, allowPrivate: [10.1.0.0/16, 127.0.0.1/32]}", true, true, false},
        {"{name: \"127.0.0.1:5000\", allowPrivate: true}", true, true, true},
        {"{name: \"localhost:5000\", allowPrivate: true}", true, true, true},
        {"{name: \"localhost.example\", allowPrivate: true}", false, true, true},
        {"{name: a.example, endpoint: \"https://127.0.0.1\", allowPrivate: true}", true, true,
         true},
        {"{name: \"127.0.0.1:5000\"}", false, false, false},
    };
    static const uint8_t loopback[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
    static const uint8_t ten_one[16] = {[10] = 0xff, 0xff, 10, 1, 0, 1};
    static const uint8_t ten_two[16] = {[10] = 0xff, 0xff, 10, 2, 0, 1};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char yaml[256];
        (void)snprintf(yaml, sizeof yaml, "builtinRegistries: false\nregistries: [%s]\n",
                       rows[i].entry);
        assert_int_equal(load(yaml), 0);
        assert_int_equal(config.registry_count, 1);
        const struct address_ranges *ranges = &config.registry_entries[0].allow_private;
        assert_int_equal(address_ranges_hold(ranges, loopback), rows[i].loopback);
        assert_int_equal(address_ranges_hold(ranges, ten_one), rows[i].ten_one);
        assert_int_equal(address_ranges_hold(ranges, ten_two), rows[i].ten_two);
        config_close(&config);
    }
    expect_file_error("registries: [{name: a, allowPrivate: [10.0.0.1/8]}]\n",
                      "1: registries.allowPrivate: \"10.0.0.1/8\" is not allowed; allowed: true | "
                      "false | a list of blocks such as 10.0.0.0/8 or fd00::/8");
    expect_file_error("registries: [{name: a, allowPrivate: [true, 10.0.0.0/8]}]\n",
                      "1: registries.allowPrivate: true, false, or a list, not both");
    char many[512] = "";
    size_t used = 0;
    for (int i = 0; i <= ADDRESS_RANGES_MAX; i++)
        used += (size_t)snprintf(many + used, sizeof many - used, "%s10.0.0.0/8",
                                 i == 0 ? "registries: [{name: a, allowPrivate: [" : ", ");
    (void)snprintf(many + used, sizeof many - used, "]}]\n");
    expect_file_error(many, "1: registries.allowPrivate: more than 12");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registries_merge_over_the_built_in),
        cmocka_unit_test(bad_registries_are_refused),
        cmocka_unit_test(bad_rules_for_tags_are_refused),
        cmocka_unit_test(registries_have_settings_of_their_own),
        cmocka_unit_test(patterns_cannot_be_loosened_org_6),
        cmocka_unit_test(private_addresses_are_listed_org_2),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
