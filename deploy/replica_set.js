// A database's health check, run in its container by mongosh. It also makes what the service needs: the replica set of
// MONGO_MEMBERS, one member after the other, and the users. Only who has MONGO_MEMBERS does; the others wait to be added.
// Ends with 0 once this member is of use, and before that with 1 and a line about what is missing.

const {MONGO_MEMBERS = '', MONGO_ROOT_PASSWORD, MONGO_API_PASSWORD} = process.env;
const members = MONGO_MEMBERS.split(',').filter(Boolean);

function wait(reason) {
  print(reason);
  quit(1);
}

function authenticate() {
  db.auth('root', MONGO_ROOT_PASSWORD);
}

// From its own machine, and while it has no users, the database lets anyone make the first one.
function makeRoot() {
  try {
    db.createUser({user: 'root', pwd: MONGO_ROOT_PASSWORD, roles: ['root']});
  } catch (refused) {
    wait('MONGO_ROOT_PASSWORD is not the one that this database was made with');
  }
}

db = connect('mongodb://127.0.0.1:27017/admin?directConnection=true&serverSelectionTimeoutMS=3000');
const hello = db.hello();
if (hello.secondary || members.length === 0) quit(0); // it answers, and is added by another member
if (!hello.setName) {
  db.adminCommand({replSetInitiate: {_id: 'rs0', members: [{_id: 0, host: members[0]}]}});
  wait('the replica set begins');
}
if (!hello.isWritablePrimary) wait('neither primary nor secondary as yet');

try {
  authenticate();
} catch (refused) {
  makeRoot();
  authenticate();
}
const own = db.getSiblingDB('sanic_api_demo');
if (!own.getUser('api')) own.createUser({user: 'api', pwd: MONGO_API_PASSWORD, roles: ['readWrite']});

const known = rs.conf().members.map((member) => member.host);
const missing = members.find((member) => !known.includes(member));
if (missing) {
  rs.add(missing); // fails if too few of them could be reached
  wait(`${missing} is added`);
}
