#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One node of a libtorrent swarm, as race.py runs it: the session is up and the torrent loaded before the start.

It uploads until our input is closed. Finished is when libtorrent itself says so: all pieces there and hashed.
"""
import json
import sys
import threading
import time

import libtorrent as lt

PORT = 6881
# Tuned for a swarm of few nodes that all want to end soon: TCP alone (uTP yields to other traffic), everybody unchoked,
# request queues deeper than the link's delay, all peers connected at once, nothing searched for, no encryption.
SETTINGS = {
    "enable_outgoing_utp": False, "enable_incoming_utp": False, "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "out_enc_policy": 2, "in_enc_policy": 2, "unchoke_slots_limit": -1, "choking_algorithm": 0,
    "max_out_request_queue": 1500, "max_allowed_in_request_queue": 3000, "request_queue_time": 3, "connections_limit": 500,
    "connection_speed": 500, "torrent_connect_boost": 255, "min_reconnect_time": 1, "send_buffer_watermark": 4 << 20,
    "send_buffer_low_watermark": 1 << 20, "mixed_mode_algorithm": 0, "rate_limit_ip_overhead": False,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}


def wait_until(session: "lt.session", handle: "lt.torrent_handle", seconds: float, wanted) -> bool:
    """Until wanted(status) holds; alerts wake us, so that no polling is in the measured time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if wanted(handle.status()):
            return True
        session.wait_for_alert(200)
        session.pop_alerts()
    return False


def main() -> int:
    job = json.loads(sys.argv[1])
    session = lt.session({**SETTINGS, "listen_interfaces": f"{job['address']}:{PORT}"})
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(job["torrent"])
    parameters.trackers = []
    parameters.save_path = job["dir"]
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    parameters.flags |= lt.torrent_flags.seed_mode if job["seeds"] else lt.torrent_flags.paused
    handle = session.add_torrent(parameters)
    wait_until(session, handle, 30, lambda status: status.state not in (lt.torrent_status.checking_files, lt.torrent_status.checking_resume_data))
    print("ready", flush=True)
    if sys.stdin.readline() != "go\n":
        return 0
    handle.resume()
    for peer in job["peers"]:
        handle.connect_peer((peer, PORT))
    closed = threading.Thread(target=sys.stdin.readline, daemon=True)
    closed.start()
    while not wait_until(session, handle, 1, lambda status: status.is_seeding):
        if not closed.is_alive():
            return 0
    print(f"done {time.monotonic():.6f}", flush=True)
    closed.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
