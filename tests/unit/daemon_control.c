/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: its mode, what of other files it replaces, who is let in, long paths, and the
 * client's errors against servers that answer rightly, wrongly, late, too much or not at all.
 */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "daemon_scratch.h"
#include "../../src/daemon/control.h"
#include "../../src/daemon/control_socket.h"
#include "../../src/daemon/loop.h"
#include "../../src/daemon/status_text.h"

static char path[1200];
static struct config_error error;

static const char *at(const char *name)
{
    (void)snprintf(path, sizeof path, "%s/%s", scratch_directory, name);
    return path;
}

static int mode_of(const char *name)
{
    struct stat info;
    return lstat(name, &info) != 0 ? -1 : (int)(info.st_mode & 07777);
}

static void socket_is_private_and_goes_away(void **state)
{
    (void)state;
    int fd = -1;
    assert_int_equal(control_listen(at("a.sock"), &fd, &error), 0);
    assert_int_equal(mode_of(path), 0600);
    control_remove(path, fd);
    (void)close(fd);
    assert_int_equal(mode_of(path), -1);
}

static void dead_agent_is_replaced_and_living_one_kept(void **state)
{
    (void)state;
    int first = -1, second = -1;
    assert_int_equal(control_listen(at("b.sock"), &first, &error), 0);
    assert_int_equal(control_listen(path, &second, &error), E_IN_USE);
    assert_non_null(strstr(error.text, "another agent answers there"));
    (void)close(first); /* as by kill -9: the file stays */
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(control_listen(path, &second, &error), 0);
    /* An agent that stops late leaves the file of its successor alone. */
    control_remove(path, -1);
    assert_int_equal(mode_of(path), 0600);
    control_remove(path, second);
    (void)close(second);
}

static void other_files_are_left_alone(void **state)
{
    (void)state;
    int fd = -1;
    FILE *file = fopen(at("file"), "w");
    assert_non_null(file);
    (void)fclose(file);
    assert_int_equal(control_listen(path, &fd, &error), E_EXISTS);
    assert_non_null(strstr(error.text, "listen.control"));
    assert_int_not_equal(mode_of(path), -1);
    assert_int_equal(control_listen(at("no/such.sock"), &fd, &error), E_NOT_FOUND);
    char target[1200];
    (void)snprintf(target, sizeof target, "%s", at("file"));
    assert_int_equal(symlink(target, at("link")), 0);
    assert_int_equal(control_listen(path, &fd, &error), E_EXISTS);
    assert_int_equal(fd, -1);
}

static void long_paths_work(void **state)
{
    (void)state;
    int fd = -1;
    char name[256];
    (void)memset(name, 'd', 200);
    name[200] = '\0';
    assert_int_equal(mkdir(at(name), 0700), 0);
    (void)snprintf(path + strlen(path), 32, "/c.sock");
    assert_true(strlen(path) > sizeof((struct sockaddr_un *)0)->sun_path);
    assert_int_equal(control_listen(path, &fd, &error), 0);
    control_remove(path, fd);
    (void)close(fd);
    (void)memset(name, 'n', 150);
    name[150] = '\0';
    assert_int_equal(control_listen(at(name), &fd, &error), E_TOO_LARGE);
}

static void own_user_is_allowed(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_true(control_peer_allowed(pair[0]));
    (void)close(pair[0]);
    (void)close(pair[1]);
    assert_false(control_peer_allowed(-1));
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    assert_false(control_peer_allowed(tcp)); /* the kernel names nobody there */
    (void)close(tcp);
}

/* A server that takes one connection, reads the request, and sends `count` times `answer`. */
static pid_t serve(const char *answer, unsigned count)
{
    int fd = -1;
    assert_int_equal(control_listen(at("s.sock"), &fd, &error), 0);
    pid_t child = fork();
    if (child != 0) {
        (void)close(fd);
        return child;
    }
    char request[512];
    (void)alarm(10);
    (void)fcntl(fd, F_SETFL, 0);
    int conn = accept(fd, NULL, NULL);
    ssize_t n = recv(conn, request, sizeof request, 0);
    if (answer == NULL)
        (void)recv(conn, request, sizeof request, 0); /* says nothing until the client goes */
    for (unsigned i = 0; n > 0 && answer != NULL && i < count; i++)
        if (send(conn, answer, strlen(answer), MSG_NOSIGNAL) < 0)
            break;
    _exit(0);
}

static int ask(const char *answer, unsigned count, uint32_t timeout_ms, struct control_answer *out)
{
    pid_t child = serve(answer, count);
    int err = control_get(path, "/status", timeout_ms, out);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)unlink(path);
    return err;
}

static void client_takes_answers_and_tells_errors(void **state)
{
    (void)state;
    static char block[65536];
    struct control_answer answer = {0};
    assert_int_equal(
        ask("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n", 1, 5000, &answer), 0);
    assert_int_equal(answer.status, 404);
    assert_string_equal(answer.body, "no\n");
    assert_int_equal(answer.body_bytes, 3);
    control_answer_free(&answer);
    assert_null(answer.body);
    assert_int_equal(ask("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", 1, 5000, &answer),
                     E_PROTOCOL);
    assert_int_equal(ask("SSH-2.0\r\n\r\n", 1, 5000, &answer), E_PROTOCOL);
    assert_int_equal(ask("", 1, 5000, &answer), E_DENIED);
    assert_int_equal(ask(NULL, 0, 50, &answer), E_TIMEOUT);
    (void)memset(block, 'x', sizeof block - 1);
    assert_int_equal(ask(block, 80, 5000, &answer), E_TOO_LARGE);
    assert_int_equal(control_get(at("gone.sock"), "/", 100, &answer), E_NOT_FOUND);
    int fd = -1;
    assert_int_equal(control_listen(at("dead.sock"), &fd, &error), 0);
    (void)close(fd);
    assert_int_equal(control_get(path, "/", 100, &answer), E_REFUSED);
}

static void client_gives_orders(void **state)
{
    (void)state;
    static char body[8192];
    struct control_answer answer = {0};
    pid_t child = serve("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}", 1);
    assert_int_equal(control_post(path, "/prefetch", "{\"image\":\"a\"}", 5000, &answer), 0);
    assert_int_equal(answer.status, 202);
    control_answer_free(&answer);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)unlink(path);
    (void)memset(body, 'x', sizeof body - 1);
    child = serve("", 1);
    assert_int_equal(control_post(path, "/prefetch", body, 5000, &answer), E_TOO_LARGE);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)unlink(path);
}

static bool trusts(const char *head)
{
    static struct http_request request;
    size_t used = 0;
    int status = 0;
    assert_int_equal(http_request_parse_order((const uint8_t *)head, strlen(head), 1024, &request,
                                              &used, &status),
                     0);
    return control_trusts(&request);
}

/* A socket that is tunnelled to a port is open to the browser there: other sites get nothing. */
static void other_sites_get_nothing(void **state)
{
    (void)state;
    assert_true(trusts("GET /explain HTTP/1.1\r\nHost: shoal\r\n\r\n"));
    assert_true(trusts("POST /prefetch HTTP/1.1\r\nHost: shoal\r\nContent-Length: 0\r\n\r\n"));
    assert_true(trusts("GET /page.json HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
                       "Sec-Fetch-Site: same-origin\r\n\r\n"));
    assert_true(trusts("GET / HTTP/1.1\r\nHost: LOCALHOST\r\nSec-Fetch-Site: none\r\n\r\n"));
    assert_true(trusts("GET / HTTP/1.1\r\nHost: [::1]:80\r\nSec-Fetch-Site: cross-site\r\n\r\n"));
    assert_false(trusts("GET /page.json HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
                        "Sec-Fetch-Site: cross-site\r\n\r\n"));
    assert_false(trusts("GET /page.json HTTP/1.1\r\nHost: other.test\r\n"
                        "Sec-Fetch-Site: same-origin\r\n\r\n"));
    assert_false(trusts("GET / HTTP/1.1\r\nHost: localhost.other.test\r\n\r\n"));
    assert_false(trusts("GET /explain HTTP/1.0\r\n\r\n")); /* nobody says for whom */
    assert_false(trusts("POST /prefetch HTTP/1.1\r\nHost: localhost\r\n"
                        "Origin: https://other.test\r\nContent-Length: 0\r\n\r\n"));
    assert_false(trusts("POST /prefetch HTTP/1.1\r\nHost: localhost\r\n"
                        "Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n"));
}

static void place_follows_the_configuration(void **state)
{
    (void)state;
    static struct config config;
    char out[CONFIG_PATH_BYTES + 16];
    (void)snprintf(config.data_dir.text, sizeof config.data_dir.text, "/data");
    assert_string_equal(control_path(&config, out), "/data/control.sock");
    (void)snprintf(config.listen_control.text, sizeof config.listen_control.text, "/run/x.sock");
    assert_string_equal(control_path(&config, out), "/run/x.sock");
}

static void figures_are_short(void **state)
{
    (void)state;
    char out[BYTES_TEXT_BYTES];
    assert_string_equal(bytes_text(0, out), "0 B");
    assert_string_equal(bytes_text(1023, out), "1023 B");
    assert_string_equal(bytes_text(1024, out), "1.0 KiB");
    assert_string_equal(bytes_text(12 << 20, out), "12.0 MiB");
    assert_string_equal(bytes_text(1048575, out), "1.0 MiB");
    assert_string_equal(bytes_text(UINT64_MAX, out), "16.0 EiB");
    assert_string_equal(span_text(59, out), "59s");
    assert_string_equal(span_text(61, out), "1m1s");
    assert_string_equal(span_text(3600, out), "1h0m");
    assert_string_equal(span_text(90000, out), "1d1h");
}

static char *text_of(const char *json)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *status = json_loads(json, 0, NULL);
    FILE *out = open_memstream(&text, &bytes);
    status_text(status, out);
    (void)fclose(out);
    json_decref(status);
    return text;
}

static void status_is_written_for_people(void **state)
{
    (void)state;
    char *text = text_of(
        "{\"id\":\"1a2b3c4d\",\"addr\":\"10.0.0.1:65002\",\"cluster\":\"c\",\"version\":\"0.1.0\","
        "\"uptime_s\":75,\"alone\":false,\"topology\":{\"zone\":{\"value\":\"z1\"}},\"members\":["
        "{\"zone\":\"z1\",\"state\":\"alive\"},{\"zone\":\"z2\",\"state\":\"alive\"},"
        "{\"zone\":\"z1\",\"state\":\"suspect\",\"addr\":\"10.0.0.9:65002\"}],"
        "\"bytes\":{\"origin\":1048576,\"peer\":3145728,\"zone\":3145728},"
        "\"cache\":{\"bytes\":4194304,\"capacity_bytes\":1073741824,\"blobs\":2},"
        "\"swarms\":[{\"digest\":\"sha256:0123456789abcdef\",\"size_bytes\":4,\"have_bytes\":1,"
        "\"peer_bytes\":1,\"readers\":2}]}");
    assert_string_equal(
        text, "node      1a2b3c4d at 10.0.0.1:65002, zone z1, cluster c, shoal 0.1.0, up 1m15s\n"
              "members   z1                     1 alive of 2\n"
              "          z2                     1 alive of 1\n"
              "          10.0.0.9:65002         suspect\n"
              "sessions  0 up, 0 B in, 0 B out\n"
              "bytes     from registries     1.0 MiB\n"
              "          from peers          3.0 MiB\n"
              "            same zone         3.0 MiB\n"
              "          given to peers          0 B\n"
              "cache     4.0 MiB of 1.0 GiB, 2 blobs\n"
              "swarms    sha256:0123456789ab  25%  1 B of 4 B, registry 0 B, peers 1 B, 2 "
              "readers\n");
    free(text);
    text = text_of("{\"alone\":true,\"cache\":{\"degraded\":true},\"members\":7}"); /* gaps */
    assert_non_null(strstr(text, "no other member found"));
    assert_non_null(strstr(text, "TAKES NO WRITES"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(socket_is_private_and_goes_away),
        cmocka_unit_test(dead_agent_is_replaced_and_living_one_kept),
        cmocka_unit_test(other_files_are_left_alone),
        cmocka_unit_test(long_paths_work),
        cmocka_unit_test(own_user_is_allowed),
        cmocka_unit_test(client_takes_answers_and_tells_errors),
        cmocka_unit_test(client_gives_orders),
        cmocka_unit_test(other_sites_get_nothing),
        cmocka_unit_test(place_follows_the_configuration),
        cmocka_unit_test(figures_are_short),
        cmocka_unit_test(status_is_written_for_people),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
