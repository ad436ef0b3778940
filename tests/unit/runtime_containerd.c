/* SPDX-License-Identifier: Apache-2.0 */
/* containerd's trees: clean and dirty hosts.toml, certificates, `_default`, several roots, config
 * versions 1 to 3, imports, and what is refused (HRD-2's file side). */
#include "runtime_tree.h"

#define CONFIG "/etc/containerd/config.toml"
#define CERTS  "/etc/containerd/certs.d/"
#define V2     "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
#define READY  "version = 2\n" V2 "  config_path = \"/etc/containerd/certs.d\"\n"

static const struct runtime_registry one[] = {{"r.example.com", false}};
static const struct runtime_registry plain[] = {{"r.example.com:5000", true}};
static const struct runtime_registry many[] = {
    {"a.example.com", false}, {"b.example.com", false}, {"_default", false}};
static struct runtime_options options;

static int set_up(void **state)
{
    int result = tree_make(state);
    options = tree_options(RUNTIME_CONTAINERD, one, 1);
    return result;
}

static void a_clean_node(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    assert_int_equal(tree_plan(&options), 1);
    assert_string_equal(tree_printed, "--- /dev/null\n"
                                      "+++ /etc/containerd/certs.d/r.example.com/hosts.toml\n"
                                      "@@ -0,0 +1,4 @@\n"
                                      "+# BEGIN shoal (made by `shoal ... apply`, taken out by "
                                      "`shoal ... revert`)\n"
                                      "+[host.\"http://127.0.0.1:65001\"]\n"
                                      "+  capabilities = [\"pull\", \"resolve\"]\n"
                                      "+# END shoal\n");
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(CERTS "r.example.com/hosts.toml"), BEGIN HOST END);
}

static void plain_http_and_a_port(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    options.registries = plain;
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(CERTS "r.example.com:5000/hosts.toml"),
                        BEGIN "server = \"http://r.example.com:5000\"\n" HOST END);
}

static void the_spelling_with_underscores_comes_first(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "r.example.com_5000_/hosts.toml", "server = \"http://r.example.com:5000\"\n");
    tree_put(CERTS "r.example.com:5000/hosts.toml", "server = \"http://elsewhere\"\n");
    options.registries = plain;
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(CERTS "r.example.com_5000_/hosts.toml"),
                        "server = \"http://r.example.com:5000\"\n" BEGIN HOST END);
}

/* Comments, order, unknown keys, headers, certificates and other mirrors stay as they are. */
static void a_lived_in_file(void **state)
{
    (void)state;
    static const char head[] = "# by hand, do not touch\n"
                               "server   =   'https://r.example.com'\n"
                               "ca = [ \"/etc/ca.pem\", 'x.pem' ]\n"
                               "future_key = { deep = [1, 2] }\n"
                               "\n";
    static const char hosts[] = "# the mirror of the house\n"
                                "[host.\"https://mirror.corp\"]\n"
                                "\tcapabilities = [\"pull\"]\n"
                                "\tclient = [[\"c.cert\", \"c.key\"]]\n"
                                "[host.\"https://mirror.corp\".header]\n"
                                "\tx-node = [\"n1\"]\n"
                                "\n"
                                "[host.'https://other.corp']";
    char text[1024];
    tree_put(CONFIG, READY);
    (void)snprintf(text, sizeof text, "%s%s", head, hosts);
    tree_put(CERTS "r.example.com/hosts.toml", text);
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_non_null(strstr(tree_printed, "then the 2 mirrors that are there"));
    (void)snprintf(text, sizeof text, "%s" BEGIN HOST END "%s", head, hosts);
    assert_string_equal(tree_get(CERTS "r.example.com/hosts.toml"), text);
}

static void no_secret(void)
{
    if (strstr(tree_printed != NULL ? tree_printed : "", "hunter2") != NULL ||
        strstr(tree_error.text, "hunter2") != NULL)
        fail_msg("a secret is shown: %s %s", tree_printed, tree_error.text);
}

/* HRD-4: headers and the like are nobody's business; init containers' logs keep what is printed. */
static void values_of_others_are_never_shown(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "[host.\"https://m\"]\nheader.Authorization = \"Basic hunter2\"",
        "header.Authorization = '''\nhunter2'''",
        "header.Authorization = 'hunter2",
        "hunter2\n",
        "header.Authorization = hunter2\n",
        "ca = 'a'\nheader.Authorization = 'hunter2'\nca = 'b'\n",
        "x = 1\n" BEGIN "[host.\"http://old\"]\nheader.x = 'hunter2'\n" END,
    };
    tree_put(CONFIG, READY);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        tree_put(CERTS "r.example.com/hosts.toml", texts[i]);
        (void)tree_apply(&options);
        no_secret();
        tree_put(CERTS "r.example.com/hosts.toml", BEGIN HOST END "hunter2 = 'hunter2'\n");
        (void)tree_revert(&options);
        no_secret();
    }
}

static void windows_line_ends_stay(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "r.example.com/hosts.toml",
             "server = \"https://r.example.com\"\r\n[host.\"https://m\"]\r\n");
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    const char *text = tree_get(CERTS "r.example.com/hosts.toml");
    for (const char *at = strchr(text, '\n'); at != NULL; at = strchr(at + 1, '\n'))
        assert_int_equal(at[-1], '\r');
}

/* Without a hosts.toml containerd takes certificates from the directory; with one it would not. */
static void certificates_beside_are_named(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "r.example.com/b.crt", "B");
    tree_put(CERTS "r.example.com/a.crt", "A");
    tree_put(CERTS "r.example.com/n.cert", "N");
    tree_put(CERTS "r.example.com/n.key", "K");
    tree_put(CERTS "r.example.com/notes.txt", "-");
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(CERTS "r.example.com/hosts.toml"),
                        BEGIN "ca = [\"a.crt\", \"b.crt\"]\n"
                              "client = [[\"n.cert\", \"n.key\"]]\n" HOST END);
    assert_int_equal(tree_revert(&options), 0);
    assert_int_equal(unlink(tree_path(CERTS "r.example.com/n.key")), 0);
    tree_refused(&options, E_REFUSED, "n.cert has no key beside it");
}

static void an_empty_file_counts_as_none(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "r.example.com/a.crt", "A");
    tree_put(CERTS "r.example.com/hosts.toml", "");
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(CERTS "r.example.com/hosts.toml"),
                        BEGIN "ca = [\"a.crt\"]\n" HOST END);
}

/* A directory of its own would hide what `_default` says for the registry. */
static void an_existing_default_is_added_to(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "_default/hosts.toml", "[host.\"https://corp\"]\n  ca = \"corp.pem\"\n");
    tree_put(CERTS "b.example.com/hosts.toml", "server = \"https://b.example.com\"\n");
    options.registries = many;
    options.registry_count = 3;
    tree_there_and_back(&options, 2);
    assert_int_equal(tree_apply(&options), 2);
    assert_string_equal(tree_get(CERTS "_default/hosts.toml"),
                        BEGIN HOST END "[host.\"https://corp\"]\n  ca = \"corp.pem\"\n");
    assert_string_equal(tree_get(CERTS "a.example.com/hosts.toml"), "(none)");
}

/* In the first root it would hide the registries of the second. */
static void a_new_default_goes_into_the_last_root(void **state)
{
    (void)state;
    static const struct runtime_registry all[] = {{"_default", false}, {"d.example.com", false}};
    tree_put(CONFIG, "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n"
                     "config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n");
    tree_put("/etc/docker/certs.d/d.example.com/ca.crt", "D");
    options.registries = all;
    options.registry_count = 2;
    tree_there_and_back(&options, 2);
    assert_int_equal(tree_apply(&options), 2);
    assert_string_equal(tree_get("/etc/docker/certs.d/_default/hosts.toml"), BEGIN HOST END);
    assert_string_equal(tree_get("/etc/docker/certs.d/d.example.com/hosts.toml"),
                        BEGIN "ca = [\"ca.crt\"]\n" HOST END);
}

static void a_mirror_put_there_by_hand_is_left(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "r.example.com/hosts.toml", "[host.\"https://m\"]\n" HOST);
    assert_int_equal(tree_apply(&options), 0);
    assert_non_null(strstr(tree_printed, "hosts.toml:2: names the agent already"));
    assert_non_null(strstr(tree_printed, "others are asked before it"));
    assert_int_equal(tree_revert(&options), 0);
    assert_int_equal(tree_done.left + tree_done.restored, 0);
}

static void another_port_replaces_the_block(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "r.example.com/hosts.toml", "server = \"https://r.example.com\"\n");
    char *before = tree_picture();
    assert_int_equal(tree_apply(&options), 1);
    options.mirror = "http://127.0.0.1:7000";
    assert_int_equal(tree_apply(&options), 1);
    assert_null(strstr(tree_get(CERTS "r.example.com/hosts.toml"), "65001"));
    assert_int_equal(tree_revert(&options), 0);
    assert_int_equal(tree_done.restored, 1);
    char *after = tree_picture();
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void hosts_written_otherwise_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"host.\"https://m\".ca = 'x'\n", "hosts.toml:1: hosts are written here in a way"},
        {"host = {\"https://m\" = {}}\n", "hosts.toml:1: hosts are written here in a way"},
        {"a = 1\n[host]\n", "hosts.toml:2: hosts are written here in a way"},
        {"[[host]]\n", "hosts.toml:1: hosts are written here in a way"},
        {"server = \n", "hosts.toml:1: no value where one should be"},
        {"server = 'a'\nserver = 'b'\n", "hosts.toml:2: a key or table that is there already"},
        {"[host.\"https://m\"]\n[host.\"https://m\"]\n", "hosts.toml:2: a key or table"},
        {"# BEGIN shoal (made by `shoal ... apply`, taken out by `shoal ... revert`)\n",
         "hosts.toml:1: a mark of shoal without its partner"},
        {"\xff\n", "hosts.toml:1: the file is not UTF-8"},
    };
    tree_put(CONFIG, READY);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(CERTS "r.example.com/hosts.toml", cases[i].text);
        tree_refused(&options, E_REFUSED, cases[i].message);
    }
}

/* One broken file, and nothing is written to the others either. */
static void all_or_nothing(void **state)
{
    (void)state;
    tree_put(CONFIG, READY);
    tree_put(CERTS "b.example.com/hosts.toml", "broken\n");
    options.registries = many;
    options.registry_count = 3;
    tree_refused(&options, E_REFUSED, "/etc/containerd/certs.d/b.example.com/hosts.toml:1: a key");
}

static void names_that_are_no_directory(void **state)
{
    (void)state;
    static const char *const names[] = {"", "..", "../x", "a/b", ".hidden", "a..b", "A.example"};
    tree_put(CONFIG, READY);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct runtime_registry registry[] = {{names[i], false}};
        options.registries = registry;
        tree_refused(&options, E_INVALID, "is no registry's name");
    }
    options.registry_count = 0;
    tree_refused(&options, E_INVALID, "name 1 to 256 registries");
    options.registry_count = 1;
    options.registries = one;
    options.mirror = "http://127.0.0.1:65001/\"]";
    tree_refused(&options, E_INVALID, "is not http://HOST:PORT");
}

/* ---- containerd's own file ---- */

static void without_config_path_nothing_is_written(void **state)
{
    (void)state;
    tree_refused(&options, E_REFUSED, "no config_path, so containerd reads no hosts.toml");
    tree_put(CONFIG, "version = 2\n" V2 "config_path = \"\"\n");
    tree_refused(&options, E_REFUSED, "no config_path, so containerd reads no hosts.toml");
    options.hosts_dir = "/etc/containerd/certs.d"; /* k3s, ctr --hosts-dir */
    tree_there_and_back(&options, 1);
}

static void config_path_can_be_added(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"version = 2\n",
         "version = 2\n" BEGIN V2 "  config_path = \"/etc/containerd/certs.d\"\n" END},
        {"version = 3", "version = 3\n" BEGIN "#no line end before\n"
                        "[plugins.\"io.containerd.cri.v1.images\".registry]\n"
                        "  config_path = \"/etc/containerd/certs.d\"\n" END},
        {"root = \"/x\" # version 1\n",
         "root = \"/x\" # version 1\n" BEGIN "[plugins.\"cri\".registry]\n"
         "  config_path = \"/etc/containerd/certs.d\"\n" END},
        {"version = 2\n" V2 "[plugins.x]\n",
         "version = 2\n" V2 BEGIN "  config_path = \"/etc/containerd/certs.d\"\n" END
         "[plugins.x]\n"},
        {"version = 2\n" V2 "  a = 1\n      config_path = ''  # dump\n[plugins.x]\n",
         "version = 2\n" V2 "  a = 1\n" BEGIN "#was:      config_path = ''  # dump\n"
         "  config_path = \"/etc/containerd/certs.d\"\n" END "[plugins.x]\n"},
    };
    options.set_config_path = true;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(CONFIG, cases[i].before);
        tree_there_and_back(&options, 2);
        assert_int_equal(tree_apply(&options), 2);
        assert_non_null(strstr(tree_printed, "restart it (systemctl restart containerd"));
        assert_string_equal(tree_get(CONFIG), cases[i].after);
        assert_int_equal(tree_revert(&options), 0);
    }
}

/* containerd 2.2 looks there by itself, as long as nothing is set. */
static void dockers_certificates_go_on_counting(void **state)
{
    (void)state;
    static const struct runtime_registry docker[] = {{"d.example.com", false}};
    options.registries = docker;
    tree_put(CONFIG, "version = 3\n");
    tree_put("/etc/docker/certs.d/d.example.com/ca.crt", "D");
    tree_refused(&options, E_REFUSED, "for 2.2 /etc/containerd/certs.d:/etc/docker/certs.d");
    options.set_config_path = true;
    tree_there_and_back(&options, 2);
    assert_int_equal(tree_apply(&options), 2);
    assert_non_null(strstr(tree_get(CONFIG),
                           "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n"));
    assert_string_equal(tree_get("/etc/docker/certs.d/d.example.com/hosts.toml"),
                        BEGIN "ca = [\"ca.crt\"]\n" HOST END);
}

/* `containerd config default` has empty tables of what does not go with config_path. */
static void empty_tables_are_no_conflict(void **state)
{
    (void)state;
    tree_put(CONFIG, "version = 2\n" V2 "config_path = ''\n"
                     "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n"
                     "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n"
                     "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"h\".auth]\n"
                     "username = 'u'\n");
    options.set_config_path = true;
    tree_there_and_back(&options, 2);
}

/* The CRI plugin, and with it the node, would not start. */
static void what_would_break_the_runtime_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n"
         "endpoint = ['https://m']\n",
         CONFIG ":2: registry.mirrors: containerd's CRI plugin does not start with that"},
        {"[plugins.cri.registry.mirrors.\"docker.io\"]\n", CONFIG ":1: registry.mirrors"},
        {"version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n"
         "config_path = '/x'\nmirrors = {'docker.io' = {}}\n",
         CONFIG ":4: registry.mirrors"},
        {READY "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"h\".tls]\n",
         CONFIG ":4: registry.configs.*.tls"},
        {READY "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n"
               "h = {tls = {ca_file = 'x'}}\n",
         CONFIG ":5: registry.configs.*.tls"},
        {"plugins = {cri = {}}\n", CONFIG ":1: the CRI plugin's section is an inline table"},
        {"[plugins]\ncri = {registry = {}}\n", CONFIG ":2: the CRI plugin's section"},
        {"[plugins.cri]\nregistry.config_path = 1\n", CONFIG ":2: config_path is no string"},
        {"version = 4\n", CONFIG ":1: only versions 1, 2 and 3 are known"},
        {"version = \n", CONFIG ":1: no value where one should be"},
        {"imports = 'x'\n", CONFIG ":1: imports is no list"},
        {READY "[plugins.cri.registry]\nconfig_path = '/other'\n",
         CONFIG ":5: config_path is set a second time"},
        {"version = 2\n" V2 "config_path = 'relative'\n", "up to 8 absolute directories"},
    };
    options.set_config_path = true;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(CONFIG, cases[i].text);
        tree_refused(&options, E_REFUSED, cases[i].message);
    }
    assert_int_equal(unlink(tree_path(CONFIG)), 0);
    tree_refused(&options, E_REFUSED, "there is no configuration of containerd to add");
}

static void imports_count(void **state)
{
    (void)state;
    tree_put(CONFIG, "version = 2\nimports = ['conf.d/*.toml', '/etc/containerd/one', '/none']\n");
    tree_put("/etc/containerd/conf.d/10.toml", READY);
    tree_put("/etc/containerd/conf.d/ignored.conf", "broken");
    tree_put("/etc/containerd/one", "imports = ['/etc/containerd/two', '/etc/containerd/one']\n");
    tree_put("/etc/containerd/two", "version = 2\n");
    tree_there_and_back(&options, 1);

    tree_put("/etc/containerd/two", "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.x]\n");
    tree_refused(&options, E_REFUSED, "/etc/containerd/two:1: registry.mirrors");
    tree_put("/etc/containerd/two", "x\n");
    tree_refused(&options, E_REFUSED, "/etc/containerd/two:1: a key without '='");

    tree_put("/etc/containerd/two", "");
    tree_put("/etc/containerd/conf.d/10.toml", "[plugins.\"io.containerd.grpc.v1.cri\"]\nx = 1\n");
    options.set_config_path = true;
    tree_refused(&options, E_REFUSED, "/etc/containerd/conf.d/10.toml has a section of the CRI");
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tree_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_clean_node),
        T(plain_http_and_a_port),
        T(the_spelling_with_underscores_comes_first),
        T(a_lived_in_file),
        T(values_of_others_are_never_shown),
        T(windows_line_ends_stay),
        T(certificates_beside_are_named),
        T(an_empty_file_counts_as_none),
        T(an_existing_default_is_added_to),
        T(a_new_default_goes_into_the_last_root),
        T(a_mirror_put_there_by_hand_is_left),
        T(another_port_replaces_the_block),
        T(hosts_written_otherwise_are_refused),
        T(all_or_nothing),
        T(names_that_are_no_directory),
        T(without_config_path_nothing_is_written),
        T(config_path_can_be_added),
        T(dockers_certificates_go_on_counting),
        T(empty_tables_are_no_conflict),
        T(what_would_break_the_runtime_is_refused),
        T(imports_count),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
