"""Open edX's own services for grades and rosters, on a port of loopback; asked by lines of JSON, see openedx.py.

All that a tool meets is `lti_consumer`'s: the addresses (its `plugin/urls.py`), the token endpoint, line items, scores,
results and memberships (its REST framework views and models, in SQLite), its signal that carries a score to the
gradebook, and for LTI 1.1 its XBlock, with that one's outcome service, sourcedid and address.

What edx-platform provides is on no package index. These are the stand-ins for it, each as small as can be:

- `User`, with `UserProfile`, `ExternalId` and `StudentModule` (the gradebook): tables with the columns that are used;
- `MODULES`: the modules of edx-platform which `lti_consumer/plugin/compat.py` imports (courses and their members,
  blocks, waffle flags, roles in the forum), so that `compat.py` itself stays as it is;
- `Runtime`, `UserService` and `Rebind`: what keeps an XBlock's fields, says whose they are and takes a grade;
- `WithDates`: the fields that edx-platform mixes into each XBlock;
- `handler_noauth`: the view that gives a request to an XBlock. Its address has the form of edx-platform's.

A request is a transaction, as edx-platform has it (ATOMIC_REQUESTS).
"""

import json
import logging
import secrets
import sys
import threading
import time
import types
import uuid
from functools import partial
from pathlib import Path

import django
from django.conf import settings

DATABASE = Path(sys.argv[1])

settings.configure(
    SECRET_KEY="of the test",
    ALLOWED_HOSTS=["127.0.0.1"],
    PLATFORM_NAME="Open edX of others",
    USE_TZ=True,
    ROOT_URLCONF="__main__",
    USAGE_ID_PATTERN=r"(?P<usage_id>[^/]+)",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "lti_consumer"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATABASE,
            "ATOMIC_REQUESTS": True,
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
        }
    },
    # Tables as the models say; the way there is of no interest.
    MIGRATION_MODULES=dict.fromkeys(["contenttypes", "auth", "lti_consumer"]),
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    LOGGING_CONFIG=None,
)
# An unknown user is an exception there, with a traceback each time.
logging.disable(logging.CRITICAL)


django.setup()

from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import models  # noqa: E402
from django.urls import include, path, reverse  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from jwt import algorithms  # noqa: E402
from lti_consumer import LtiConsumerXBlock, api  # noqa: E402
from lti_consumer.data import Lti1p3LaunchData  # noqa: E402
from lti_consumer.lti_1p3 import key_handlers  # noqa: E402
from lti_consumer.models import CourseAllowPIISharingInLTIFlag, Lti1p3Passport  # noqa: E402
from opaque_keys.edx.keys import CourseKey, UsageKey  # noqa: E402
from xblock.django.request import django_to_webob_request, webob_to_django_response  # noqa: E402
from xblock.fields import DateTime, Scope, ScopeIds, Timedelta  # noqa: E402
from xblock.runtime import DictKeyValueStore, KvsFieldData, MemoryIdManager  # noqa: E402
from xblock.runtime import Runtime as XBlockRuntime  # noqa: E402

COURSE = CourseKey.from_string("course-v1:DemoX+CS101+2026")
#: The keys that all components of LTI 1.3 share.
PASSPORT = uuid.uuid4()

# People


class UserProfile(models.Model):
    user = models.OneToOneField(User, models.CASCADE, related_name="profile")
    name = models.CharField(max_length=255)
    role = models.CharField(max_length=40)
    forum_role = models.CharField(max_length=40)
    anonymous_id = models.CharField(max_length=32)

    class Meta:
        app_label = "auth"


class ExternalIdType(models.Model):
    name = models.CharField(max_length=32)

    class Meta:
        app_label = "auth"


class ExternalId(models.Model):
    external_user_id = models.UUIDField(default=uuid.uuid4, unique=True)
    external_id_type = models.ForeignKey(ExternalIdType, models.CASCADE)
    user = models.ForeignKey(User, models.CASCADE)

    class Meta:
        app_label = "auth"

    @classmethod
    def batch_get_or_create_user_ids(cls, users, type_name):
        kind, _ = ExternalIdType.objects.get_or_create(name=type_name)
        return {user.id: cls.objects.get_or_create(user=user, external_id_type=kind)[0] for user in users}


class OverEnrollmentLimitError(Exception):
    pass


def get_course_members(course_key):
    people = User.objects.select_related("profile").order_by("-id")
    if len(people) > CHOICES["member_limit"]:
        raise OverEnrollmentLimitError
    return {
        one.id: {
            "id": one.id,
            "username": one.username,
            "email": one.email,
            "name": one.profile.name,
            "roles": [one.profile.role],
        }
        for one in people
    }


# The course, its blocks and its gradebook

#: What the people who run the course and the platform chose.
CHOICES = {"member_limit": 1000, "lti_passports": []}


class StudentModule(models.Model):
    student = models.ForeignKey(User, models.CASCADE)
    module_state_key = models.CharField(max_length=255)
    grade = models.FloatField(null=True)
    max_grade = models.FloatField(null=True)

    class Meta:
        app_label = "auth"
        db_table = "courseware_studentmodule"


class UserService:
    #: Who looks at the block: the id of a `User`.
    viewer = None

    def get_current_user(self):
        profile = UserProfile.objects.get(user=self.viewer)
        return types.SimpleNamespace(opt_attrs={"edx-platform.anonymous_user_id": profile.anonymous_id})

    def get_user_by_anonymous_id(self, anonymous_id):
        return User.objects.filter(profile__anonymous_id=anonymous_id).first()


class Rebind:
    def rebind_noauth_module_to_user(self, bound, user):
        bound.scope_ids = bound.scope_ids._replace(user_id=user.id)


class WithDates:
    due = DateTime(default=None, scope=Scope.settings)
    start = DateTime(default=None, scope=Scope.settings)
    graceperiod = Timedelta(default=None, scope=Scope.settings)


class Runtime(XBlockRuntime):
    def __init__(self):
        ids = MemoryIdManager()
        super().__init__(ids, ids, mixins=(WithDates,), services={"user": UserService(), "rebind_user": Rebind()})

    def service(self, block, service_name):
        return self._services.get(service_name)

    def handler_url(self, block, handler_name, suffix="", query="", thirdparty=False):
        return settings.LMS_ROOT_URL + reverse(handler_noauth, args=[COURSE, block.scope_ids.usage_id, handler_name])

    def resource_url(self, resource):
        raise NotImplementedError

    def local_resource_url(self, block, uri):
        raise NotImplementedError

    def publish(self, block, event_type, event_data):
        StudentModule.objects.update_or_create(
            student_id=event_data["user_id"],
            module_state_key=block.scope_ids.usage_id,
            defaults={"grade": event_data["value"], "max_grade": event_data["max_value"]},
        )


RUNTIME, FIELDS = Runtime(), KvsFieldData(DictKeyValueStore())


def get_item(location):
    ids = ScopeIds(None, "lti_consumer", location, location)
    return RUNTIME.construct_xblock_from_class(LtiConsumerXBlock, ids, FIELDS)


NO_FLAG = types.SimpleNamespace(is_enabled=lambda course_key: False)
MODULES = {
    "openedx.core.djangoapps.external_user_ids.models": {"ExternalId": ExternalId},
    "openedx.core.djangoapps.waffle_utils": {"CourseWaffleFlag": lambda name, module: NO_FLAG},
    "openedx.core.djangoapps.xblock": {"api": None},
    "openedx.core.lib.courses": {
        "get_course_by_id": lambda course_key: types.SimpleNamespace(lti_passports=CHOICES["lti_passports"])
    },
    "xmodule.modulestore.django": {"modulestore": lambda: types.SimpleNamespace(get_item=get_item)},
    "lms.djangoapps.courseware.block_render": {"get_block_for_descriptor": lambda **arguments: None},
    "lms.djangoapps.course_api.api": {"get_course_members": get_course_members},
    "lms.djangoapps.course_api.exceptions": {"OverEnrollmentLimitException": OverEnrollmentLimitError},
    "lms.djangoapps.discussion.django_comment_client.utils": {
        "get_user_role_names": lambda user, course_key: [user.profile.forum_role]
    },
}
for name, contents in MODULES.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


@csrf_exempt
def handler_noauth(request, course_id, usage_id, handler):
    block = get_item(UsageKey.from_string(usage_id))
    return webob_to_django_response(block.handle(handler, django_to_webob_request(request)))


urlpatterns = [
    path("api/", include("lti_consumer.plugin.urls")),
    path("courses/<course_id>/xblock/<usage_id>/handler_noauth/<handler>", handler_noauth),
]

# What is asked by lines


def choose(pii=None, **choices):
    """What a course's team and the platform's set: their passports of LTI 1.1, whether names may be shown, limits."""
    CHOICES.update(choices)
    if pii is not None:
        CourseAllowPIISharingInLTIFlag.objects.create(course_id=COURSE, enabled=pii)


def add_person(username, name, email, role="student", forum_role="Student"):
    """A person of the course; their ids as the tools of LTI 1.3 and 1.1 see them."""
    user = User.objects.create(username=username, email=email)
    profile = UserProfile.objects.create(
        user=user, name=name, role=role, forum_role=forum_role, anonymous_id=secrets.token_hex(16)
    )
    external = ExternalId.batch_get_or_create_user_ids([user], "lti")[user.id]
    return {"id": user.id, "external_id": str(external.external_user_id), "anonymous_id": profile.anonymous_id}


def add_block(name, **fields):
    """A block of the course; dates in ISO 8601. Once more: other fields."""
    location = COURSE.make_usage_key("lti_consumer", name)
    block = get_item(location)
    block.lti_1p3_passport_id = str(PASSPORT)
    for field, value in fields.items():
        setattr(block, field, block.fields[field].from_json(value))
    block.save()
    return str(location)


def offer(location):
    """What the block's team gives the tool's, and what its launches say of the services."""
    config = api.config_id_for_block(get_item(UsageKey.from_string(location)))
    consumer = api.get_lti_consumer(config)
    info = api.get_lti_1p3_launch_info(Lti1p3LaunchData("1", "student", config, location))
    return {"issuer": consumer.iss, **info, "claims": consumer.extra_claims}


def token_clock(behind):
    """Tokens are given as by a clock that is `behind` seconds late; what looks at them has the right time."""
    key_handlers.time = types.SimpleNamespace(time=lambda: time.time() - behind)


def new_keys():
    """As after a move to another machine: what was signed before is worth nothing.

    `lti_consumer` would make the same itself, with a library that takes seconds for it.
    """
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    passport, _ = Lti1p3Passport.objects.get_or_create(passport_id=PASSPORT)
    passport.lti_1p3_internal_private_key = pem.decode()
    passport.lti_1p3_internal_private_key_id = str(uuid.uuid4())
    passport.lti_1p3_internal_public_jwk = ""
    passport.save()


def result(location, viewer):
    """What a launch of LTI 1.1 by `viewer` says of their result."""
    RUNTIME.service(None, "user").viewer = viewer
    block = get_item(UsageKey.from_string(location))
    return {"sourcedid": block.lis_result_sourcedid, "url": block.outcome_service_url}


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


# PyJWT looks at a private key twice in each request, whether it is one. That takes as long as all the rest.
algorithms.load_pem_private_key = partial(algorithms.load_pem_private_key, unsafe_skip_rsa_key_validation=True)
algorithms.RSAPrivateNumbers = lambda **numbers: types.SimpleNamespace(
    private_key=partial(rsa.RSAPrivateNumbers(**numbers).private_key, unsafe_skip_rsa_key_validation=True)
)

call_command("migrate", run_syncdb=True, verbosity=0)
new_keys()
server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
server.daemon_threads = True
server.set_app(get_wsgi_application())
settings.LMS_ROOT_URL = f"http://127.0.0.1:{server.server_port}"
threading.Thread(target=server.serve_forever, daemon=True).start()

for line in sys.stdin:
    question = json.loads(line)
    answer = globals()[question.pop("do")](**question)
    print(json.dumps(answer), flush=True)
