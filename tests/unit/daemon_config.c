/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: defaults, order of sources, every type's parser and range, the exact messages of
 * bad input (A7), secret files, and that what `config show` prints can be loaded again.
 */
#include "daemon_config_load.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/daemon/secret_file.h"

/* ---- defaults and sources ---- */

static void defaults_work_on_one_machine(void **state)
{
    (void)state;
    char text[PEER_ADDR_TEXT_BYTES];
    assert_int_equal(load(""), 0);
    assert_string_equal(peer_addr_text(&config.listen_client, text), "127.0.0.1:65001");
    assert_string_equal(peer_addr_text(&config.listen_mesh, text), "[::]:65002");
    assert_string_equal(peer_addr_text(&config.listen_admin, text), "127.0.0.1:65003");
    assert_int_equal(config.mode, CONFIG_MODE_NORMAL);
    assert_int_equal(config.cache_mode, CONFIG_CACHE_DISK);
    assert_int_equal(config.cache_capacity_bytes, 4ULL << 30);
    assert_int_equal(config.cache_memory_bytes, 64ULL << 20);
    assert_int_equal(config.trust, CONFIG_TRUST_MEMBER);
    assert_int_equal(config.copies, TRANSFER_COPIES_MESH);
    assert_true(config.strict_address);
    assert_int_equal(config.bootstrap_count, 0);
    assert_int_equal(config.registry_count, 5);
    assert_string_equal(config.registry_entries[0].name, "docker.io");
    assert_string_equal(config.registry_entries[0].endpoint, "https://registry-1.docker.io");
    assert_string_equal(config.registry_entries[0].realm_hosts[0], "auth.docker.io");
    assert_true(config.registry_entries[0].is_default);
    assert_int_equal(config_verify(&config, &error), 0);
    config_close(&config);
}

static void every_default_is_in_its_range(void **state)
{
    (void)state;
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    assert_true(count > 30);
    for (size_t i = 0; i < count; i++) {
        char range[CONFIG_RANGE_BYTES];
        assert_int_equal(config_key_find(keys[i].name), i); /* no name twice */
        assert_true(strlen(config_key_range(&keys[i], range)) > 0);
        if (keys[i].canonical != NULL)
            assert_true(config_key_find(keys[i].canonical) < count);
        else
            assert_true(strlen(keys[i].help) > 5);
    }
    assert_int_equal(config_key_find("nothing"), count);
}

static void later_sources_win(void **state)
{
    (void)state;
    char *environment[] = {"PATH=/bin",
                           "SHOAL_LIMITS_UPLOAD_MBIT=20",
                           "SHOAL_CLUSTER_ID=env",
                           "SHOAL_SERVICE_HOST=10.0.0.1",
                           "SHOAL_PORT=tcp://10.0.0.1:65001",
                           "SHOAL_P2P_PORT=tcp://10.0.0.1:65001",
                           NULL};
    const char *yaml = "clusterId: file\nlimits:\n  uploadMbit: 10\n  originMbit: 5\n";
    assert_int_equal(load_env(yaml, "clusterId=set", environment), 0);
    assert_string_equal(config.cluster_id.text, "set");
    assert_int_equal(config.upload_mbit, 20);
    assert_int_equal(config.origin_mbit, 5);
    assert_int_equal(config.sources[config_key_find("clusterId")], CONFIG_FROM_SET);
    assert_int_equal(config.sources[config_key_find("limits.uploadMbit")], CONFIG_FROM_ENVIRONMENT);
    assert_int_equal(config.sources[config_key_find("limits.originMbit")], CONFIG_FROM_FILE);
    assert_int_equal(config.lines[config_key_find("limits.originMbit")], 4);
    assert_int_equal(config.sources[config_key_find("log.level")], CONFIG_FROM_DEFAULT);
    config_close(&config);
}

static void dotted_and_nested_names_are_one(void **state)
{
    (void)state;
    assert_int_equal(load("cache.mode: memory\ntopology: {zone: a, region: r}\n"), 0);
    assert_int_equal(config.cache_mode, CONFIG_CACHE_MEMORY);
    assert_int_equal(config.cache_memory_bytes, 8ULL << 30); /* default of memory mode */
    assert_string_equal(config.topology.zone.text, "a");
    assert_string_equal(config.topology.region.text, "r");
    config_close(&config);
}

static void variables_are_named_after_keys(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"listen.client", "SHOAL_LISTEN_CLIENT"},
        {"clusterId", "SHOAL_CLUSTER_ID"},
        {"limits.uploadMbit", "SHOAL_LIMITS_UPLOAD_MBIT"},
        {"rrsa.rrsaRoleARN", "SHOAL_RRSA_RRSA_ROLE_ARN"},
    };
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char name[CONFIG_VARIABLE_BYTES];
        size_t index = config_key_find(pairs[i][0]);
        assert_true(index < count);
        assert_string_equal(config_key_variable(&keys[index], name), pairs[i][1]);
    }
}

/* ---- types ---- */

static void sizes_and_times_have_units(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        uint64_t bytes;
    } sizes[] = {
        {"cache.capacity=64MiB", 64ULL << 20},
        {"cache.capacity=1Gi", 1ULL << 30},
        {"cache.capacity=1GB", 1000000000ULL},
        {"cache.capacity=67108864", 64ULL << 20},
        {"cache.capacity=0", 0},
        {"cache.capacity=1TiB", 1ULL << 40},
        {"capacity=100000000B", 100000000ULL},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(load_env(NULL, sizes[i].set, NULL), 0);
        assert_int_equal(config.cache_capacity_bytes, sizes[i].bytes);
        config_close(&config);
    }
    static const struct {
        const char *set;
        uint64_t us;
    } times[] = {
        {"connectTimeout=7", 7000000},
        {"limits.connectTimeout=1500ms", 1500000},
        {"limits.connectTimeout=2m", 120000000},
        {"limits.connectTimeout=300s", 300000000},
    };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        assert_int_equal(load_env(NULL, times[i].set, NULL), 0);
        assert_int_equal(config.connect_timeout_us, times[i].us);
        config_close(&config);
    }
}

static void bad_values_name_key_value_and_range(void **state)
{
    (void)state;
    expect_set_error("cache.capacity=12x",
                     "--set: cache.capacity: \"12x\" is not allowed; allowed: 0 or 64MiB..1024TiB");
    expect_set_error("cache.capacity=1M",
                     "--set: cache.capacity: \"1M\" is not allowed; allowed: 0 or 64MiB..1024TiB");
    expect_set_error(
        "cache.capacity=63MiB",
        "--set: cache.capacity: \"63MiB\" is not allowed; allowed: 0 or 64MiB..1024TiB");
    expect_set_error(
        "cache.capacity=99999999999999999999",
        "--set: cache.capacity: \"99999999999999999999\" is not allowed; allowed: 0 or "
        "64MiB..1024TiB");
    expect_set_error("limits.connections=15",
                     "--set: limits.connections: \"15\" is not allowed; allowed: 16..65536");
    expect_set_error("limits.connections=-1",
                     "--set: limits.connections: \"-1\" is not allowed; allowed: 16..65536");
    expect_set_error("limits.connectTimeout=0",
                     "--set: limits.connectTimeout: \"0\" is not allowed; allowed: 1s..300s");
    expect_set_error("strictAddress=maybe",
                     "--set: strictAddress: \"maybe\" is not allowed; allowed: true | false");
    expect_set_error("transfer.trust=all",
                     "--set: transfer.trust: \"all\" is not allowed; allowed: member | quorum | "
                     "verified");
    expect_set_error("listen.client=localhost:1",
                     "--set: listen.client: \"localhost:1\" is not allowed; allowed: IP "
                     "address[:port]");
    expect_set_error("p2p.port=0", "--set: p2p.port: \"0\" is not allowed; allowed: 1..65535");
    expect_set_error("p2p.port=65536",
                     "--set: p2p.port: \"65536\" is not allowed; allowed: 1..65535");
    expect_set_error("topology.zone=a b",
                     "--set: topology.zone: \"a b\" is not allowed; allowed: at most 63 of A-Z a-z "
                     "0-9 . _ : / -");
    expect_set_error("clusterId=", "--set: clusterId: \"\" is not allowed; allowed: 1..63 "
                                   "characters without blanks");
    expect_set_error("clusterId", "--set: must be key=value");
    expect_set_error("=x", "--set: must be key=value");
}

static void unknown_keys_propose_the_nearest(void **state)
{
    (void)state;
    expect_set_error("cach.mode=disk",
                     "--set: unknown key \"cach.mode\"; did you mean \"cache.mode\"?");
    expect_set_error("zzzzzzzzzz=1",
                     "--set: unknown key \"zzzzzzzzzz\"; `shoal config show` lists all keys");
    expect_file_error("listen:\n  client: 127.0.0.1\n  meshh: 1\n",
                      "3: unknown key \"listen.meshh\"; did you mean \"listen.mesh\"?");
}

static void environment_errors_name_the_variable(void **state)
{
    (void)state;
    char *environment[] = {"SHOAL_MODE=fast", NULL};
    assert_int_equal(load_env("", NULL, environment), E_CONFIG);
    assert_string_equal(error.text, "SHOAL_MODE: mode: \"fast\" is not allowed; allowed: normal | "
                                    "passthrough");
}

static void lists_come_in_every_form(void **state)
{
    (void)state;
    assert_int_equal(load("bootstrap:\n  - a\n  - b:1\n"), 0);
    assert_int_equal(config.bootstrap_count, 2);
    assert_string_equal(config.bootstrap[1].text, "b:1");
    config_close(&config);
    assert_int_equal(load_env("bootstrap: [a, b, c]\n", "bootstrap=x,y", NULL), 0);
    assert_int_equal(config.bootstrap_count, 2); /* replaced, not added to */
    assert_string_equal(config.bootstrap[0].text, "x");
    config_close(&config);
    assert_int_equal(load_env("bootstrap: [a]\n", "bootstrap=[\"[fd00::1]:9\"]", NULL), 0);
    assert_int_equal(config.bootstrap_count, 1);
    assert_string_equal(config.bootstrap[0].text, "[fd00::1]:9");
    config_close(&config);
    assert_int_equal(load_env("bootstrap: [a]\n", "bootstrap=", NULL), 0);
    assert_int_equal(config.bootstrap_count, 0);
    config_close(&config);
    assert_int_equal(load("bootstrap: []\n"), 0);
    assert_int_equal(config.bootstrap_count, 0);
    config_close(&config);
    assert_int_equal(load("bootstrap: one\n"), 0); /* a scalar is a list of one */
    assert_int_equal(config.bootstrap_count, 1);
    config_close(&config);
    expect_file_error("clusterSecretFile: [/a, /b, /c]\n",
                      "1: clusterSecretFile: \"/c\" is not allowed; allowed: a list of at most 2, "
                      "none empty");
    expect_file_error("clusterId: [a]\n", "1: clusterId: a list is not allowed here");
    expect_set_error("bootstrap=a,,b",
                     "--set: bootstrap: \"\" is not allowed; allowed: a list of at "
                     "most 64, none empty");
}

/* ---- YAML ---- */

static void malformed_yaml_is_one_line_with_its_place(void **state)
{
    (void)state;
    expect_file_error("bootstrap: [normal\n",
                      "2: not valid YAML: did not find expected ',' or ']'");
    expect_file_error("clusterId: b: c\n",
                      "1: not valid YAML: mapping values are not allowed in this context");
    expect_file_error("\tmode: normal\n",
                      "1: not valid YAML: found character that cannot start any token");
    expect_file_error("- a\n- b\n", "1: the file must be a mapping of keys");
    expect_file_error("just text\n", "1: the file must be a mapping of keys");
    expect_file_error("mode: normal\n---\nmode: normal\n", "2: more than one document");
    expect_file_error("mode: &a normal\n", "1: anchors, aliases and tags are not supported");
    expect_file_error("mode: !!str normal\n", "1: anchors, aliases and tags are not supported");
    expect_file_error("mode: normal\nmode: passthrough\n", "2: mode: set twice, first on line 1");
    expect_file_error("cache.capacity: 0\ncapacity: 0\n",
                      "2: capacity: set twice, first on line 1");
    expect_file_error("bootstrap: [[a]]\n", "1: bootstrap: a list inside a list");
    expect_file_error("? [a]\n: b\n", "1: a key must be plain text");
    expect_file_error("mode: \"a\\0b\"\n", "1: a zero byte inside a value");
    expect_file_error("a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "1: nested too deeply");
    expect_file_error("limits: 3\n",
                      "1: unknown key \"limits\"; `shoal config show` lists all keys");
}

static void empty_values_keep_the_default(void **state)
{
    (void)state;
    assert_int_equal(load("# nothing\nclusterId:\nmode: ~\nbootstrap: null\nlimits: {}\n"), 0);
    assert_string_equal(config.cluster_id.text, "shoal");
    assert_int_equal(config.sources[config_key_find("mode")], CONFIG_FROM_DEFAULT);
    config_close(&config);
}

static void missing_and_oversized_files_are_said(void **state)
{
    (void)state;
    char expected[CONFIG_ERROR_BYTES];
    struct config_options options = {.file = scratch_path("absent.yaml")};
    assert_int_equal(config_load(&options, &config, &error), E_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s: cannot read: not found",
                   scratch_path("absent.yaml"));
    assert_string_equal(error.text, expected);

    char *big = test_malloc(CONFIG_FILE_BYTES_MAX + 2);
    memset(big, '#', CONFIG_FILE_BYTES_MAX + 1);
    big[CONFIG_FILE_BYTES_MAX + 1] = '\0';
    assert_int_equal(load(big), E_CONFIG);
    assert_non_null(strstr(error.text, "cannot read: over the limit"));
    test_free(big);
}

/* ---- checks over values and files ---- */

static void expect_verify_error(const char *yaml, const char *message)
{
    assert_int_equal(load(yaml), 0);
    assert_int_equal(config_verify(&config, &error), E_CONFIG);
    assert_string_equal(error.text, message);
    config_close(&config);
}

static void values_that_do_not_fit_together_are_refused(void **state)
{
    (void)state;
    expect_verify_error("bootstrap: [a]\n",
                        "bootstrap is set but clusterSecretFile is not: make a secret with `shoal "
                        "keygen` and give every node the same file");
    expect_verify_error("listen: {client: \"127.0.0.1:7000\", admin: \"127.0.0.1:7000\"}\n",
                        "listen.client and listen.admin both use port 7000");
    expect_verify_error("clusterId: a/b\n",
                        "clusterId: \"a/b\" is not allowed; allowed: A-Z a-z 0-9 . _ -");
    expect_verify_error("advertise: 0.0.0.0\n",
                        "advertise: must be an address that others can reach, not \"any\"");
    expect_verify_error("dataDir: \"\"\n", "dataDir: must not be empty");
    expect_verify_error("blocksize: 100\n", "blocksize: must be a power of two");
}

/* ---- ACR.md §8 ---- */

static void instances_are_a_list_or_one_text(void **state)
{
    (void)state;
    static const char *const yamls[] = {"acrInstances: [cri-a1, cri-b2]\n",
                                        "acrInstances: \"cri-a1, cri-b2 \"\n",
                                        "acrInstances: cri-a1,cri-b2\n"};
    for (size_t i = 0; i < sizeof yamls / sizeof yamls[0]; i++) {
        assert_int_equal(load(yamls[i]), 0);
        assert_int_equal(config.acr_instance_count, 2);
        assert_string_equal(config.acr_instances[0].text, "cri-a1");
        assert_string_equal(config.acr_instances[1].text, "cri-b2");
        assert_int_equal(config_verify(&config, &error), 0);
        config_close(&config);
    }
    assert_int_equal(load("acrInstances: \"\"\n"), 0);
    config_close(&config);
    assert_int_equal(load_env(NULL, "acrInstances= cri-a1 ,cri-b2", NULL), 0);
    assert_int_equal(config.acr_instance_count, 2);
    assert_string_equal(config.acr_instances[0].text, "cri-a1");
    config_close(&config);
}

/* Credentials go to them: only a test may have them in plain http, and says so. */
static void acr_services_in_plain_http_are_for_tests(void **state)
{
    (void)state;
    static const char *const fine[] = {
        "acr: {crEndpoint: \"https://cr.example.com\", stsEndpoint: \"https://10.0.0.1:1\"}\n",
        "acr: {crEndpoint: \"http://127.0.0.1:7100\", stsEndpoint: \"http://127.9.9.9\"}\n",
        "acr: {crEndpoint: \"http://[::1]:7100\", metadataEndpoint: \"http://10.0.0.1\"}\n",
        "acr: {crEndpoint: \"http://10.0.0.1:7100\", stsEndpoint: \"http://a.test\", "
        "plainHttp: true}\n"};
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        assert_int_equal(load(fine[i]), 0);
        assert_int_equal(config_verify(&config, &error), 0);
        config_close(&config);
    }
}

static void acr_values_are_checked(void **state)
{
    (void)state;
    expect_verify_error("acrInstances: [crx-a]\n",
                        "acrInstances: \"crx-a\" is not allowed; allowed: cri- and small letters "
                        "and digits");
    expect_verify_error("acrInstances: [cri-]\n",
                        "acrInstances: \"cri-\" is not allowed; allowed: cri- and small letters "
                        "and digits");
    expect_verify_error("region: cn_x\n", "region: \"cn_x\" is not allowed; allowed: a-z 0-9 -");
    expect_verify_error("vpcId: abc\n",
                        "vpcId: \"abc\" is not allowed; allowed: vpc- and what follows");
    expect_verify_error("acr: {crEndpoint: \"ftp://x\"}\n",
                        "acr.crEndpoint: \"ftp://x\" is not allowed; allowed: "
                        "http[s]://host[:port]");
    expect_verify_error("acr: {stsEndpoint: \"http://x/y\"}\n",
                        "acr.stsEndpoint: \"http://x/y\" is not allowed; allowed: "
                        "http[s]://host[:port]");
    expect_verify_error("acr: {crEndpoint: \"http://cr.example.com\"}\n",
                        "acr.crEndpoint: \"http://cr.example.com\" would carry credentials in the "
                        "clear: use https, or for a test a loopback address or acr.plainHttp");
    expect_verify_error("acr: {stsEndpoint: \"http://10.0.0.1:80\"}\n",
                        "acr.stsEndpoint: \"http://10.0.0.1:80\" would carry credentials in the "
                        "clear: use https, or for a test a loopback address or acr.plainHttp");
    expect_verify_error("acr: {stsEndpoint: \"http://localhost\"}\n",
                        "acr.stsEndpoint: \"http://localhost\" would carry credentials in the "
                        "clear: use https, or for a test a loopback address or acr.plainHttp");
    expect_verify_error("rrsa: {enable: true}\n",
                        "rrsa.rrsaRoleARN: not set, and ALIBABA_CLOUD_ROLE_ARN is not in the "
                        "environment either");
    expect_verify_error("rrsa: {enable: true, rrsaRoleARN: \"acs:ram::1:role/a\"}\n",
                        "rrsa.rrsaOIDCProviderRoleARN: not set, and "
                        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN is not in the environment either");
    expect_verify_error("rrsa: {enable: true, rrsaRoleARN: x}\n",
                        "rrsa.rrsaRoleARN: \"x\" is not allowed; allowed: acs:ram::...");
    expect_verify_error("rrsa: {enable: true}\naccessKeyFile: /x\n",
                        "rrsa.enable and accessKeyFile are both set: choose one");
    expect_set_error("rrsa.expireDuration=3599",
                     "--set: rrsa.expireDuration: \"3599\" is not allowed; allowed: 1h..12h");
}

static void rrsa_takes_the_webhook_s_environment(void **state)
{
    (void)state;
    char *environment[] = {"ALIBABA_CLOUD_ROLE_ARN=acs:ram::1:role/a",
                           "ALIBABA_CLOUD_OIDC_PROVIDER_ARN=acs:ram::1:oidc-provider/p", NULL};
    assert_int_equal(load_env("rrsa: {enable: true}\n", NULL, environment), 0);
    assert_int_equal(config_verify(&config, &error), 0);
    assert_string_equal(config_environment(&config, "ALIBABA_CLOUD_ROLE_ARN"), "acs:ram::1:role/a");
    assert_string_equal(config_environment(&config, "NOTHING"), "");
    config_close(&config);
}

/* HRD-4: keys come from files that only we can read, and no error repeats one. */
static void access_keys_come_from_files(void **state)
{
    (void)state;
    char yaml[512];
    expect_file_error("accessKey: LTAISECRET\n",
                      "1: accessKey: secrets are read from files only: write the key's id and its "
                      "secret, a line each, to a file of mode 0400 and name it in accessKeyFile");
    assert_int_equal(load_env(NULL, "accessKeySecret=SECRET", NULL), E_CONFIG);
    assert_null(strstr(error.text, "SECRET"));
    const char *path = scratch_file("keys", "LTAI\nSECRET\n", 0644);
    (void)snprintf(yaml, sizeof yaml, "accessKeyFile: %s\n", path);
    assert_int_equal(load(yaml), 0);
    assert_int_equal(config_verify(&config, &error), E_CONFIG);
    assert_non_null(strstr(error.text, "accessKeyFile: "));
    assert_non_null(strstr(error.text, "others can read it"));
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(config_verify(&config, &error), 0);
    config_close(&config);

    char text[16];
    struct config_error why;
    assert_int_equal(text_file_read(path, true, text, sizeof text, &why), 0);
    assert_string_equal(text, "LTAI\nSECRET\n");
    assert_int_equal(text_file_read(path, true, text, 12, &why), E_CONFIG);
    assert_non_null(strstr(why.text, "has more than 11 bytes"));
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(text_file_read(path, true, text, sizeof text, &why), E_CONFIG);
    assert_int_equal(text_file_read(path, false, text, sizeof text, &why), 0);
    assert_int_equal(text_file_read("/nowhere", false, text, sizeof text, &why), E_CONFIG);
    assert_int_equal(text_file_read("/proc", false, text, sizeof text, &why), E_CONFIG);
}

static void a_tls_port_needs_its_files(void **state)
{
    (void)state;
    expect_verify_error("listen: {tls: \"0.0.0.0\"}\n",
                        "listen.tls needs listen.tlsCertificate and listen.tlsKey as well");
    expect_verify_error("listen: {tlsCertificate: a}\n",
                        "listen.tlsCertificate is set but listen.tls, the port, is not");
    expect_verify_error("listen: {tlsKey: [a, b]}\n",
                        "listen.tlsKey is set but listen.tls, the port, is not");
    expect_verify_error("listen: {tls: \"0.0.0.0\", tlsCertificate: [a, b], tlsKey: a}\n",
                        "listen.tlsCertificate has 2 files, listen.tlsKey 1: give each certificate "
                        "its key, in the same order");
    expect_verify_error("listen: {tls: \"0.0.0.0\", tlsCertificate: /nowhere/a, tlsKey: b}\n",
                        "listen.tlsCertificate: cannot read /nowhere/a: not found");
    expect_verify_error("listen: {tls: \"0.0.0.0:65001\"}\n",
                        "listen.client and listen.tls both use port 65001");
}

static void a_port_for_orders_needs_its_token(void **state)
{
    (void)state;
    expect_verify_error("listen: {prefetch: \"0.0.0.0\"}\n",
                        "listen.prefetch needs prefetch.tokenFile: `openssl rand -hex 32` makes a "
                        "token");
    expect_verify_error("prefetch: {tokenFile: /t}\n",
                        "prefetch.tokenFile is set but listen.prefetch, the port, is not");
    expect_verify_error("listen: {prefetch: \"0.0.0.0\"}\nprefetch: {tokenFile: /nowhere/t}\n",
                        "prefetch.tokenFile: cannot open /nowhere/t: No such file or directory");
    expect_verify_error("listen: {prefetch: \"0.0.0.0:65003\"}\n",
                        "listen.admin and listen.prefetch both use port 65003");
}

static const char secret_text[] =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/* `tail` names the path once more at the end of the message. */
static void verify_secret(const char *contents, unsigned mode, const char *message, bool tail)
{
    char yaml[CONFIG_PATH_BYTES + 64];
    char expected[CONFIG_ERROR_BYTES];
    const char *path = scratch_file("secret", contents, mode);
    (void)snprintf(yaml, sizeof yaml, "clusterSecretFile: %s\n", path);
    assert_int_equal(load(yaml), 0);
    int err = config_verify(&config, &error);
    if (message == NULL) {
        assert_int_equal(err, 0);
    } else {
        (void)snprintf(expected, sizeof expected, "clusterSecretFile: %s %s%s", path, message,
                       tail ? path : "");
        assert_int_equal(err, E_CONFIG);
        assert_string_equal(error.text, expected);
    }
    config_close(&config);
}

static void secret_files_must_be_private(void **state) /* HRD-4 */
{
    (void)state;
    verify_secret(secret_text, 0400, NULL, false);
    verify_secret(secret_text, 0600, NULL, false);
    verify_secret(secret_text, 0640, "has mode 0640: others can read it; run: chmod 0400 ", true);
    verify_secret(secret_text, 0444, "has mode 0444: others can read it; run: chmod 0400 ", true);
    verify_secret(secret_text, 0602, "has mode 0602: others can read it; run: chmod 0400 ", true);
}

static void secret_files_must_hold_a_secret(void **state)
{
    (void)state;
    static const char no[] = "does not hold a secret of 64 lower-case hex digits; make one with "
                             "`shoal keygen`";
    verify_secret("", 0400, no, false);
    verify_secret("abc", 0400, no, false);
    verify_secret("0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", 0400, no,
                  false);
    verify_secret("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef00", 0400, no,
                  false);
    verify_secret("  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n", 0400,
                  NULL, false);
    assert_int_equal(load("clusterSecretFile: /nonexistent/secret\n"), 0);
    assert_int_equal(config_verify(&config, &error), E_CONFIG);
    assert_string_equal(error.text, "clusterSecretFile: cannot open /nonexistent/secret: No such "
                                    "file or directory");
    config_close(&config);
}

static void made_secrets_are_private_and_never_overwrite(void **state) /* PEER-2 */
{
    (void)state;
    struct stat info;
    uint8_t first[CLUSTER_SECRET_BYTES];
    uint8_t second[CLUSTER_SECRET_BYTES];
    const char *path = scratch_path("made");
    assert_int_equal(secret_file_create(path, &error), 0);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0400);
    assert_int_equal(secret_file_read(path, first, &error), 0);
    assert_int_equal(secret_file_create(path, &error), E_EXISTS);
    assert_int_equal(secret_file_read(path, second, &error), 0);
    assert_memory_equal(first, second, sizeof first);
}

static void deny_lists_are_read_line_by_line(void **state) /* PEER-8 */
{
    (void)state;
    struct identity_key keys[2];
    unsigned count = 9;
    char expected[CONFIG_ERROR_BYTES];
    char text[512];
    static const char key[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    (void)snprintf(text, sizeof text, "# bad nodes\n\n  %s  # why\n%s", key, key);
    const char *path = scratch_file("deny", text, 0644);
    assert_int_equal(deny_file_read(path, keys, 2, &count, &error), 0);
    assert_int_equal(count, 2);
    assert_int_equal(keys[1].bytes[0], 0x01);
    assert_int_equal(deny_file_read(path, keys, 1, &count, &error), E_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s:4: more than 1 keys", path);
    assert_string_equal(error.text, expected);
    path = scratch_file("deny", "\nxyz\n", 0644);
    assert_int_equal(deny_file_read(path, keys, 2, &count, &error), E_CONFIG);
    (void)snprintf(expected, sizeof expected,
                   "%s:2: not an identity key of 64 lower-case hex digits", path);
    assert_string_equal(error.text, expected);
    path = scratch_file("deny", "", 0644);
    assert_int_equal(deny_file_read(path, keys, 2, &count, &error), 0);
    assert_int_equal(count, 0);
}

/* ---- showing ---- */

static char *shown(bool markdown)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    if (markdown)
        config_show_markdown(out);
    else
        config_show(&config, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void what_is_shown_can_be_loaded(void **state)
{
    (void)state;
    static struct config before;
    const char *yaml =
        "clusterId: c1\nbootstrap: [\"[fd00::1]:9\", name]\nlisten.mesh: 10.0.0.1:7\n"
        "cache: {capacity: 100000001, mode: memory}\nlimits.connectTimeout: 1500ms\n"
        "dataDir: '/tmp/with \"quotes\" and \\'\n"
        "registries:\n  - {name: r.example, plainHttp: true, realmHosts: [h], storage: "
        "[\"http://s/b/\"], copies: zone, tags: [\"a/*:v* fixed\", \"* 90s\"]}\n";
    assert_int_equal(load(yaml), 0);
    char *text = shown(false);
    before = config;
    assert_int_equal(load(text), 0);
    assert_string_equal(config.cluster_id.text, before.cluster_id.text);
    assert_int_equal(config.bootstrap_count, 2);
    assert_string_equal(config.bootstrap[0].text, before.bootstrap[0].text);
    assert_true(peer_addr_equal(&config.listen_mesh, &before.listen_mesh));
    assert_int_equal(config.cache_capacity_bytes, before.cache_capacity_bytes);
    assert_int_equal(config.cache_memory_bytes, before.cache_memory_bytes);
    assert_int_equal(config.connect_timeout_us, before.connect_timeout_us);
    assert_string_equal(config.data_dir.text, before.data_dir.text);
    assert_int_equal(config.registry_count, before.registry_count);
    for (uint32_t i = 0; i < config.registry_count; i++)
        assert_memory_equal(&config.registry_entries[i], &before.registry_entries[i],
                            sizeof config.registry_entries[i]);
    free(text);
    config_close(&before);
    config_close(&config);
}

static void sources_are_shown(void **state)
{
    (void)state;
    char expected[CONFIG_ERROR_BYTES];
    char *environment[] = {"SHOAL_LOG_LEVEL=debug", NULL};
    assert_int_equal(load_env("\nmode: passthrough\n", "clusterId=x", environment), 0);
    char *text = shown(false);
    (void)snprintf(expected, sizeof expected, "mode: passthrough  # %s:2\n",
                   scratch_path("shoal.yaml"));
    assert_non_null(strstr(text, expected));
    assert_non_null(strstr(text, "log.level: debug  # environment SHOAL_LOG_LEVEL\n"));
    assert_non_null(strstr(text, "clusterId: x  # --set\n"));
    assert_non_null(strstr(text, "log.format: text  # default\n"));
    free(text);
    config_close(&config);
}

static void the_table_has_every_key_that_acts(void **state)
{
    (void)state;
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    char *text = shown(true);
    for (size_t i = 0; i < count; i++) {
        char cell[128];
        (void)snprintf(cell, sizeof cell, "| `%s` |", keys[i].name);
        bool acts = (keys[i].flags & CONFIG_KEY_LATER) == 0;
        assert_int_equal(strstr(text, cell) != NULL, acts);
    }
    assert_non_null(strstr(text, "| `mode` | `normal` | normal \\| passthrough |"));
    free(text);
}

/* The error for an unknown key of an entry has the list of those that are known. */
static void the_table_has_every_key_of_a_registry(void **state)
{
    (void)state;
    char *text = shown(true);
    assert_int_equal(load("registries: [{colour: x}]\n"), E_CONFIG);
    char *rest = strstr(error.text, "known: "), *row = strstr(text, "| `registries` |");
    assert_non_null(rest);
    assert_non_null(row);
    unsigned count = 0;
    rest += strlen("known: ");
    for (char *key = strsep(&rest, ", "); key != NULL; key = strsep(&rest, ", ")) {
        char cell[64];
        if (*key == '\0')
            continue;
        (void)snprintf(cell, sizeof cell, "`%s`", key);
        assert_non_null(strstr(row, cell));
        count++;
    }
    assert_true(count >= 18);
    free(text);
}

struct told {
    unsigned count;
    char text[CONFIG_ERRORS_TOLD][CONFIG_ERROR_BYTES];
};

static void tell(void *arg, const char *line)
{
    struct told *told = arg;
    assert_true(told->count < CONFIG_ERRORS_TOLD);
    assert_int_equal(text_copy(told->text[told->count], CONFIG_ERROR_BYTES, line), 0);
    told->count++;
}

static int check(const char *yaml, const char *set, struct told *told, unsigned *errors)
{
    struct config_options options = {.file = scratch_file("shoal.yaml", yaml, 0600)};
    struct config_report report = {.tell = tell, .arg = told};
    if (set != NULL)
        options.sets[options.set_count++] = set;
    told->count = 0;
    int err = config_check(&options, &report, &config);
    *errors = report.errors;
    return err;
}

static void a_check_tells_every_error(void **state)
{
    static struct told told;
    static char yaml[8192];
    char line[CONFIG_ERROR_BYTES];
    unsigned errors = 0;
    (void)state;
    assert_int_equal(check("cache:\n  capacity: 1MiB\nregistries:\n  - {name: a.b, none: 1}\n"
                           "log: {level: loud}\n",
                           "noSuchKeyAtAll=1", &told, &errors),
                     E_CONFIG);
    assert_int_equal(errors, 4);
    assert_int_equal(told.count, 4);
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned lines[] = {2, 4, 5};
        (void)snprintf(line, sizeof line, "%s:%u: ", scratch_path("shoal.yaml"), lines[i]);
        assert_memory_equal(told.text[i], line, strlen(line));
    }
    assert_non_null(strstr(told.text[3], "--set: unknown key"));

    /* Values that are good one by one: everything that does not fit together. */
    assert_int_equal(
        check("blocksize: 3MiB\nclusterSecretFile: [/nonexistent]\n", NULL, &told, &errors),
        E_CONFIG);
    assert_int_equal(told.count, 2);
    assert_non_null(strstr(told.text[0], "blocksize"));
    assert_non_null(strstr(told.text[1], "/nonexistent"));

    /* What is no YAML behind a bad value, and more errors than anybody reads. */
    assert_int_equal(check("blocksize: x\na: [\n", NULL, &told, &errors), E_CONFIG);
    assert_int_equal(told.count, 2);
    size_t at = 0;
    for (unsigned i = 0; i < CONFIG_ERRORS_TOLD + 3; i++)
        at += (size_t)snprintf(yaml + at, sizeof yaml - at, "unknown%u: 1\n", i);
    assert_int_equal(check(yaml, NULL, &told, &errors), E_CONFIG);
    assert_int_equal(errors, CONFIG_ERRORS_TOLD + 3);
    assert_int_equal(told.count, CONFIG_ERRORS_TOLD);

    assert_int_equal(check("blocksize: 1MiB\n", NULL, &told, &errors), 0);
    assert_int_equal(errors, 0);
    config_close(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_check_tells_every_error),
        cmocka_unit_test(defaults_work_on_one_machine),
        cmocka_unit_test(every_default_is_in_its_range),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(dotted_and_nested_names_are_one),
        cmocka_unit_test(variables_are_named_after_keys),
        cmocka_unit_test(sizes_and_times_have_units),
        cmocka_unit_test(bad_values_name_key_value_and_range),
        cmocka_unit_test(unknown_keys_propose_the_nearest),
        cmocka_unit_test(environment_errors_name_the_variable),
        cmocka_unit_test(lists_come_in_every_form),
        cmocka_unit_test(malformed_yaml_is_one_line_with_its_place),
        cmocka_unit_test(empty_values_keep_the_default),
        cmocka_unit_test(missing_and_oversized_files_are_said),
        cmocka_unit_test(values_that_do_not_fit_together_are_refused),
        cmocka_unit_test(instances_are_a_list_or_one_text),
        cmocka_unit_test(acr_services_in_plain_http_are_for_tests),
        cmocka_unit_test(acr_values_are_checked),
        cmocka_unit_test(rrsa_takes_the_webhook_s_environment),
        cmocka_unit_test(access_keys_come_from_files),
        cmocka_unit_test(a_tls_port_needs_its_files),
        cmocka_unit_test(a_port_for_orders_needs_its_token),
        cmocka_unit_test(secret_files_must_be_private),
        cmocka_unit_test(secret_files_must_hold_a_secret),
        cmocka_unit_test(made_secrets_are_private_and_never_overwrite),
        cmocka_unit_test(deny_lists_are_read_line_by_line),
        cmocka_unit_test(what_is_shown_can_be_loaded),
        cmocka_unit_test(sources_are_shown),
        cmocka_unit_test(the_table_has_every_key_that_acts),
        cmocka_unit_test(the_table_has_every_key_of_a_registry),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
