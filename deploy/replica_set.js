// Health check of a database container, run by mongosh. It also initiates the replica set with MONGO_MEMBERS, adds one
// member after the other, and creates the users. Only the container with MONGO_MEMBERS does this; the other members
// wait until they are added. Exits with 0 once this member is usable, before that with 1 and the reason.

const {readFileSync} = require('fs');

const members = (process.env.MONGO_MEMBERS || '').split(',').filter(Boolean);

function secret(name) {
  return readFileSync(`/run/secrets/${name}`, 'utf8').trim();
}

function wait(reason) {
  print(reason);
  quit(1);
}

function authenticate() {
  db.auth('root', secret('mongo_root_password'));
}

// Localhost exception: while there are no users, MongoDB accepts the creation of the first one from its own machine.
function makeRoot() {
  try {
    db.createUser({user: 'root', pwd: secret('mongo_root_password'), roles: ['root']});
  } catch (error) {
    wait('secrets/mongo_root_password is not the password that this database was created with');
  }
}

db = connect('mongodb://127.0.0.1:27017/admin?directConnection=true&serverSelectionTimeoutMS=3000');
const hello = db.hello();
if (hello.secondary || members.length === 0) quit(0); // it responds, and another member adds it
if (!hello.setName) {
  db.adminCommand({replSetInitiate: {_id: 'rs0', members: [{_id: 0, host: members[0]}]}});
  wait('the replica set is being initiated');
}
if (!hello.isWritablePrimary) wait('not yet primary or secondary');

try {
  authenticate();
} catch (error) {
  makeRoot();
  authenticate();
}
const own = db.getSiblingDB('sanic_api_demo');
if (!own.getUser('api')) own.createUser({user: 'api', pwd: secret('mongo_api_password'), roles: ['readWrite']});

const known = rs.conf().members.map((member) => member.host);
const missing = members.find((member) => !known.includes(member));
if (missing) {
  rs.add(missing); // fails if too few members are reachable
  wait(`${missing} is being added`);
}
