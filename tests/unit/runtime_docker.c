/* SPDX-License-Identifier: Apache-2.0 */
/* daemon.json: the agent as first mirror, the file's layout kept; dockerd is not run here. */
#include "runtime_tree.h"

#define FILE_ "/etc/docker/daemon.json"

static const struct runtime_registry hub[] = {{"docker.io", false}};
static const struct runtime_registry other[] = {{"r.example.com", false}};
static struct runtime_options options;

static int set_up(void **state)
{
    int result = tree_make(state);
    options = tree_options(RUNTIME_DOCKER, hub, 1);
    tree_directories("/etc/docker/x");
    return result;
}

static void clean_and_lived_in_files(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"", "{\n  \"registry-mirrors\": [\"" MIRROR "\"]\n}\n"},
        {" \n", "{\n  \"registry-mirrors\": [\"" MIRROR "\"]\n}\n"},
        {"{}", "{\"registry-mirrors\": [\"" MIRROR "\"]}"},
        {"{ }\n", "{\"registry-mirrors\": [\"" MIRROR "\"] }\n"},
        {"{\n    \"bip\": \"1.2.3.4/24\",\n    \"n\": 1e3\n}\n",
         "{\n    \"registry-mirrors\": [\"" MIRROR "\"],\n    \"bip\": \"1.2.3.4/24\",\n"
         "    \"n\": 1e3\n}\n"},
        {"{\"a\":[1,{\"registry-mirrors\":[]}],\"registry-mirrors\":[]}",
         "{\"a\":[1,{\"registry-mirrors\":[]}],\"registry-mirrors\":[\"" MIRROR "\"]}"},
        {"{\r\n\t\"registry-mirrors\": [\r\n\t\t\"https://corp\",\r\n\t\t\"https://b\"\r\n\t]\r\n}",
         "{\r\n\t\"registry-mirrors\": [\r\n\t\t\"" MIRROR "\",\r\n\t\t\"https://corp\",\r\n\t\t"
         "\"https://b\"\r\n\t]\r\n}"},
        {"{\"registry-mirrors\": [\"https://corp/a]b\\\"\"]}",
         "{\"registry-mirrors\": [\"" MIRROR "\", \"https://corp/a]b\\\"\"]}"},
    };
    tree_there_and_back(&options, 1); /* no file at all */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(FILE_, cases[i].before);
        tree_there_and_back(&options, 1);
        assert_int_equal(tree_apply(&options), 1);
        assert_string_equal(tree_get(FILE_), cases[i].after);
        assert_int_equal(tree_revert(&options), 0);
    }
}

static void there_already(void **state)
{
    (void)state;
    tree_put(FILE_, "{\"registry-mirrors\": [\"https://corp\", \"" MIRROR "\"]}");
    assert_int_equal(tree_apply(&options), 0);
    assert_non_null(strstr(tree_printed, "others are asked before the agent"));
}

static void another_port_replaces_the_element(void **state)
{
    (void)state;
    tree_put(FILE_, "{\"registry-mirrors\": [\"https://corp\"]}");
    assert_int_equal(tree_apply(&options), 1);
    options.mirror = "http://127.0.0.1:7";
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(FILE_),
                        "{\"registry-mirrors\": [\"http://127.0.0.1:7\", \"https://corp\"]}");
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(FILE_), "{\"registry-mirrors\": [\"https://corp\"]}");
}

/* Somebody edits the file after us; revert takes out our element and nothing else. */
static void undone_among_edits_of_others(void **state)
{
    (void)state;
    static const struct {
        const char *before, *edited, *after;
    } cases[] = {
        {"{\"a\": 1}", "{\"registry-mirrors\": [\"" MIRROR "\"], \"a\": 2}", "{\"a\": 2}"},
        {"{\"a\": 1}", "{\"a\": 2, \"registry-mirrors\": [\"" MIRROR "\"]}", "{\"a\": 2}"},
        {"{\"a\": 1}", "{\"b\": 1, \"registry-mirrors\": [\"" MIRROR "\" ], \"a\": 2}",
         "{\"b\": 1, \"a\": 2}"},
        {"{}", "{\"registry-mirrors\": [\"" MIRROR "\", \"https://new\"]}",
         "{\"registry-mirrors\": [\"https://new\"]}"},
        {"{}", "{\"registry-mirrors\": [\"https://new\", \"" MIRROR "\"]}",
         "{\"registry-mirrors\": [\"https://new\"]}"},
        {"{\"registry-mirrors\": []}", "{\"registry-mirrors\": [\"" MIRROR "\"], \"z\": 0}",
         "{\"registry-mirrors\": [], \"z\": 0}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(FILE_, cases[i].before);
        assert_int_equal(tree_apply(&options), 1);
        tree_put(FILE_, cases[i].edited);
        assert_int_equal(tree_revert(&options), 0);
        assert_int_equal(tree_done.undone, 1);
        assert_string_equal(tree_get(FILE_), cases[i].after);
    }
    assert_int_equal(unlink(tree_path(FILE_)), 0);
    assert_int_equal(tree_apply(&options), 1);
    tree_put(FILE_, "{ \"registry-mirrors\" : [ \"" MIRROR "\" ] }"); /* laid out anew */
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(FILE_), "(none)");
}

/* HRD-4, also where the whole file is one line. */
static void values_of_others_are_never_shown(void **state)
{
    (void)state;
    tree_put(FILE_, "{\"proxies\": {\"http-proxy\": \"http://u:hunter2\\\"@p\"}}");
    assert_int_equal(tree_plan(&options), 1);
    assert_string_equal(tree_printed,
                        "--- /etc/docker/daemon.json\n+++ /etc/docker/daemon.json\n"
                        "@@ -1,1 +1,1 @@\n"
                        "-{\"proxies\": {\"http-proxy\": \"...\"}}\n"
                        "+{\"registry-mirrors\": [\"" MIRROR "\"], \"proxies\": "
                        "{\"http-proxy\": \"...\"}}\n"
                        "note: dockerd reads this at `systemctl reload docker`. If its command "
                        "line has --registry-mirror, too, it does not start with both\n");
    tree_put(FILE_, "{\"a\": \"b\" \"hunter2\"}");
    assert_int_equal(tree_plan(&options), E_REFUSED);
    assert_null(strstr(tree_error.text, "hunter2"));
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]", FILE_ ":1: not a JSON object"},
        {"{\n\"a\": }", FILE_ ":2: "},
        {"{\"a\": 1, \"a\": 2}", FILE_ ":1: duplicate object key"},
        {"{\"registry-mirrors\": \"x\"}", FILE_ ":1: registry-mirrors is no list"},
        {"{\"Registry-Mirrors\": []}", FILE_ ":1: \"Registry-Mirrors\" is spelled in another case"},
        {"{\"registry\\u002dmirrors\": []}", FILE_ ":1: the file is laid out in a way"},
        {"{} x", FILE_ ":1: end of file expected"},
        {"// c\n{}", FILE_ ":1: '[' or '{' expected"},
        {"\xef\xbb\xbf{}", FILE_ ":1: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(FILE_, cases[i].text);
        tree_refused(&options, E_REFUSED, cases[i].message);
    }
    options.registries = other;
    tree_refused(&options, E_INVALID, "docker.io must be the agent's default registry");
    options.registries = hub;
    assert_int_equal(unlink(tree_path(FILE_)), 0);
    assert_int_equal(rmdir(tree_path("/etc/docker")), 0);
    tree_refused(&options, E_REFUSED, "is docker installed here?");
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tree_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(clean_and_lived_in_files),          T(there_already),
        T(another_port_replaces_the_element), T(undone_among_edits_of_others),
        T(values_of_others_are_never_shown),  T(refusals),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
