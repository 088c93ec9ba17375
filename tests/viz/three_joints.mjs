// Plays a GLB or VRMA in three.js (a VRMA on its own skeleton as a VRM humanoid) and prints its 52 joints at one second.
import fs from 'fs';

globalThis.self = globalThis;
globalThis.ProgressEvent ??= class {};
const THREE = await import('three');
const { GLTFLoader } = await import('three/examples/jsm/loaders/GLTFLoader.js');
const { VRMHumanoid } = await import('@pixiv/three-vrm');
const { VRMAnimationLoaderPlugin, createVRMAnimationClip } = await import('@pixiv/three-vrm-animation');

const [file, seconds] = [process.argv[2], Number(process.argv[3])];
const bytes = fs.readFileSync(file);
const loader = new GLTFLoader();
loader.register((parser) => new VRMAnimationLoaderPlugin(parser));
const gltf = await loader.parseAsync(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), '');
const nodes = await gltf.parser.getDependencies('node');
let clip = gltf.animations[0];
let vrm = null;
if (file.endsWith('.vrma')) {
  const { humanBones } = gltf.parser.json.extensions.VRMC_vrm_animation.humanoid;
  const bones = Object.entries(humanBones).map(([name, bone]) => [name, { node: nodes[bone.node] }]);
  const humanoid = new VRMHumanoid(Object.fromEntries(bones));
  gltf.scene.add(humanoid.normalizedHumanBonesRoot);
  vrm = { humanoid, scene: gltf.scene, meta: { metaVersion: '1' } };
  clip = createVRMAnimationClip(gltf.userData.vrmAnimations[0], vrm);
}
const mixer = new THREE.AnimationMixer(gltf.scene);
mixer.clipAction(clip).play();
mixer.setTime(seconds);
vrm?.humanoid.update();
gltf.scene.updateMatrixWorld(true);
const place = new THREE.Vector3();
console.log(JSON.stringify(nodes.slice(0, 52).map((node) => node.getWorldPosition(place).toArray())));
