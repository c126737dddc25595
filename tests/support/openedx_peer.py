"""Open edX's own LTI consumer, asked by lines of JSON. It runs in an environment of its own, see openedx.py.

Nothing here builds a message: all of it is `lti_consumer`'s.
"""

import json
import sys

from django.conf import settings

settings.configure(
    PLATFORM_NAME="Open edX of others",
    USE_TZ=True,
    INSTALLED_APPS=[],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
)

from lti_consumer.data import Lti1p3LaunchData  # noqa: E402
from lti_consumer.lti_1p1.consumer import LtiConsumer1p1  # noqa: E402
from lti_consumer.lti_1p3.consumer import LtiAdvantageConsumer  # noqa: E402


def launch_11(url, key, secret, user, context, link, custom):
    consumer = LtiConsumer1p1(url, key, secret)
    consumer.set_user_data(**user)
    consumer.set_context_data(**context)
    consumer.set_outcome_service_url("https://lms.example.org/outcome?a=1&b=2")
    consumer.set_launch_presentation_locale("de")
    consumer.set_custom_parameters(custom)
    return consumer.generate_launch_request(link)


consumers = {}


def platform_13(name, deep_linking_return_url="", **arguments):
    consumer = LtiAdvantageConsumer(**arguments)
    if deep_linking_return_url:
        consumer.enable_deep_linking(arguments["lti_launch_url"], deep_linking_return_url)
    consumers[name] = consumer
    return consumer.get_public_keyset()


def login_13(name, **data):
    return consumers[name].prepare_preflight_url(Lti1p3LaunchData(**data))


def launch_13(name, query, user, context, link, custom):
    consumer = consumers[name]
    consumer.set_user_data(**user)
    consumer.set_resource_link_claim(**link)
    consumer.set_launch_presentation_claim("iframe", "https://lms.example.org/return")
    if context:
        consumer.set_context_claim(**context)
    consumer.set_custom_parameters(custom)
    return consumer.generate_launch_request(query)


def chosen(name, token):
    return consumers[name].check_and_decode_deep_linking_token(token)


def token(name, request):
    return consumers[name].access_token(request)


for line in sys.stdin:
    question = json.loads(line)
    answer = globals()[question.pop("do")](**question)
    print(json.dumps(answer), flush=True)
