"""Opens the page for operators in a browser and signs in as its dialog would: sign_in.py CHROMIUM URL USER PASSWORD. Prints what the
page says of the server, after it has begun to be fed, how wide it is on small screens, and which hosts it asks. The browser is talked
to over a pipe (DevTools)."""
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import urllib.parse

chromium, url, user, password = sys.argv[1:]
profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
to_browser, our_end = os.pipe()
their_end, from_browser = None, None
from_browser, their_end = os.pipe()


def place():
    # The browser reads descriptor 3 and writes to 4.
    a, b = os.dup(to_browser), os.dup(their_end)
    os.dup2(a, 3)
    os.dup2(b, 4)


options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile.name}"]
browser = subprocess.Popen([chromium, *options, "about:blank"], preexec_fn=place, close_fds=False, stderr=subprocess.DEVNULL)
deadline, buffer, last_id, events = time.time() + 60, b"", 0, []


def receive():
    global buffer
    while b"\0" not in buffer:
        ready, _, _ = select.select([from_browser], [], [], max(0, deadline - time.time()))
        if not ready:
            sys.exit("the browser says nothing")
        buffer += os.read(from_browser, 1 << 16)
    message, buffer = buffer.split(b"\0", 1)
    return json.loads(message)


def send(method, session=None, **params):
    global last_id
    last_id += 1
    message = {"id": last_id, "method": method, "params": params}
    if session:
        message["sessionId"] = session
    os.write(our_end, json.dumps(message).encode() + b"\0")
    return last_id


def call(method, session=None, **params):
    wanted = send(method, session, **params)
    while True:
        message = receive()
        if message.get("id") == wanted:
            return message.get("result", {})
        on_event(message)


# How far to the right anything reaches that does not lie in a frame that scrolls.
WIDEST = """Math.max(innerWidth, ...Array.from(document.body.querySelectorAll("*")).filter((e) => !e.closest(".scrolls table, svg"))
    .map((e) => Math.round(e.getBoundingClientRect().right)))"""
asked, hosts = 0, set()


def on_event(message):
    global asked
    params, session = message.get("params", {}), message.get("sessionId")
    if message.get("method") == "Network.requestWillBeSent":
        hosts.add(urllib.parse.urlsplit(params["request"]["url"]).hostname)
    if message.get("method") == "Fetch.requestPaused":
        send("Fetch.continueRequest", session, requestId=params["requestId"])
    elif message.get("method") == "Fetch.authRequired":
        asked += 1
        answer = {"response": "ProvideCredentials", "username": user, "password": password}
        send("Fetch.continueWithAuth", session, requestId=params["requestId"], authChallengeResponse=answer)


try:
    target = call("Target.createTarget", url="about:blank")["targetId"]
    session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    call("Fetch.enable", session, handleAuthRequests=True)
    call("Network.enable", session)
    send("Page.navigate", session, url=url)
    text = "document.title + '\\n' + (document.getElementById('subtitle')?.textContent ?? '')"
    while time.time() < deadline:
        shown = call("Runtime.evaluate", session, expression=text).get("result", {}).get("value", "")
        if " up for " in shown:
            print(shown)
            for width in (390, 320):
                call("Emulation.setDeviceMetricsOverride", session, width=width, height=800, deviceScaleFactor=2, mobile=True)
                wide = call("Runtime.evaluate", session, expression=WIDEST)
                print(f"{wide['result']['value']} of {width}")
            # An icon that is given as data has no host.
            print("asks", *sorted(host for host in hosts if host))
            print(f"asked {asked} times")
            break
        time.sleep(0.2)
    else:
        sys.exit(f"the page is not fed: {shown}")
finally:
    browser.kill()
    browser.wait()
